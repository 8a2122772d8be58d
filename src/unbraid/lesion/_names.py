from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import SupportsIndex, TypeAlias

from unbraid.discover import Block, BlockLike, BranchLike, part_name, part_of
from unbraid.form import ResidualForm

# A block, or one of its branches as (block, branch), branches from 0.
Part: TypeAlias = int | tuple[int, int]
LesionSet: TypeAlias = tuple[Part, ...]
# "single", "pairs", or sets of one's own: of blocks by index or name, and of branches as (block, branch).
Sets: TypeAlias = str | Iterable[BlockLike | Sequence[BranchLike]]


def the_sets(form: ResidualForm, sets: Sets) -> tuple[LesionSet, ...]:
    """The sets of blocks or branches to delete, one by one."""
    blocks = [block.index for block in form.blocks]
    if isinstance(sets, str):
        if sets not in ("single", "pairs"):
            raise ValueError(f'sets: "single", "pairs", or sets of blocks such as [(0,), (1, 2)]; got "{sets}".')
        return tuple(combinations(blocks, 1 if sets == "single" else 2))
    alone = (str, Block, SupportsIndex)
    given = ((which,) if isinstance(which, alone) else which for which in sets)
    return tuple(tuple(part_of(form.blocks, part, "lesion") for part in which) for which in given)


def the_names(form: ResidualForm, sets: Iterable[LesionSet]) -> tuple[str, ...]:
    """What is deleted: "layer1.0 + layer2.1"."""
    return tuple(" + ".join(part_name(form.blocks, part) for part in which) or "nothing" for which in sets)

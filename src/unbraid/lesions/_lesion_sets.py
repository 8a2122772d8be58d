from collections.abc import Iterable, Sequence
from functools import partial
from itertools import combinations
from typing import SupportsIndex, TypeAlias

from unbraid.discover import Block, BlockLike, BranchLike, removal_name, removal_of
from unbraid.form import ResidualForm
from unbraid.graph import Removal

LesionSet: TypeAlias = tuple[Removal, ...]
# "single", "pairs", or sets of one's own: of blocks by index or name, of branches as (block, branch), and of skips as
# (block, "skip").
Sets: TypeAlias = str | Iterable[BlockLike | Sequence[BranchLike]]


def the_sets(form: ResidualForm, sets: Sets) -> tuple[LesionSet, ...]:
    """The sets of blocks, branches or skips to delete, one by one."""
    blocks = [block.index for block in form.blocks]
    if isinstance(sets, str):
        if sets not in ("single", "pairs"):
            raise ValueError(f'sets: "single", "pairs", or sets of blocks such as [(0,), (1, 2)]; got "{sets}".')
        return tuple(combinations(blocks, 1 if sets == "single" else 2))
    return tuple(_the_set(form, which) for which in sets)


def _the_set(form: ResidualForm, which: BlockLike | Sequence[BranchLike]) -> LesionSet:
    """A set of blocks and branches, or one block as such a set."""
    parts = (which,) if isinstance(which, str | Block | SupportsIndex) else which
    return tuple(removal_of(form.blocks, part, "lesion", skips=True) for part in parts)


def the_names(form: ResidualForm, sets: Iterable[LesionSet]) -> tuple[str, ...]:
    """What is deleted: "layer1.0 + layer2.1"."""
    return tuple(" + ".join(map(partial(removal_name, form.blocks), which)) or "nothing" for which in sets)

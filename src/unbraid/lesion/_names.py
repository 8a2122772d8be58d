from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import TypeAlias

from unbraid.form import ResidualForm

# A block, or one of its branches as (block, branch), branches from 0.
Part: TypeAlias = int | tuple[int, int]
LesionSet: TypeAlias = tuple[Part, ...]
# "single", "pairs", or sets of one's own.
Sets: TypeAlias = str | Iterable[Part | Sequence[Part]]


def the_sets(form: ResidualForm, sets: Sets) -> tuple[LesionSet, ...]:
    """The sets of blocks or branches to delete, one by one."""
    blocks = [block.index for block in form.blocks]
    if isinstance(sets, str):
        if sets not in ("single", "pairs"):
            raise ValueError(f'sets: "single", "pairs", or sets of blocks such as [(0,), (1, 2)]; got "{sets}".')
        return tuple(combinations(blocks, 1 if sets == "single" else 2))
    return tuple((which,) if isinstance(which, int) else tuple(which) for which in sets)


def the_names(form: ResidualForm, sets: Iterable[LesionSet]) -> tuple[str, ...]:
    """What is deleted: "layer1.0 + layer2.1"; a branch by its own name, after its block's where that says more."""
    blocks = {block.index: block for block in form.all_blocks}

    def name(part: Part) -> str:
        block, branch = part if isinstance(part, tuple) else (part, None)
        whole = blocks[block].name
        if branch is None:
            return whole
        own = blocks[block].branches[branch]
        return own if own.startswith(whole) else f"{whole}: {own}"

    return tuple(" + ".join(map(name, which)) or "nothing" for which in sets)

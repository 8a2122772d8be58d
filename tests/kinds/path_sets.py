"""All paths by the set of blocks whose branches they pass, against networks in which other branches are cut.

f(T)    the gradient where only the branches of T let one through
v(S)    what the paths carry that pass the branches of S and no other: f(T) = Σ_{S⊆T} v(S), so v(S) = Σ_{T⊆S} ± f(T)
"""

from collections.abc import Collection, Iterator
from itertools import combinations

import torch
from torch import Tensor

from kinds.known import Known
from kinds.told import Cut
from networks import F64
from unbraid import all_paths

Blocks = frozenset[int]


def by_sets(case: Known) -> dict[Blocks, Tensor]:
    """v(S) · input for each set of top-level blocks, by the network's marks alone: [batch]."""
    every = frozenset(range(len(case.names)))
    opened = {sets: _gradient_along(case, [case.names[k] for k in every - sets]) for sets in subsets(every)}
    return {
        sets: torch.stack([(-1) ** len(sets - inner) * opened[inner] for inner in subsets(sets)]).sum(0)
        for sets in opened
    }


def subsets(sets: Blocks) -> Iterator[Blocks]:
    for size in range(len(sets) + 1):
        yield from map(frozenset, combinations(sorted(sets), size))


def _gradient_along(case: Known, cut: Collection[str]) -> Tensor:
    """The gradient of the second score, times the inputs, with some blocks' branches cut."""
    leaves = case.leaves()
    scalar = case.network.told(Cut(cut), *leaves)[:, 1].sum()
    nothing = torch.zeros(len(leaves[0]), dtype=F64)
    if not scalar.requires_grad:
        return nothing
    gradients = torch.autograd.grad(scalar, leaves, allow_unused=True)
    along = [(g * x).flatten(1).sum(1) for g, x in zip(gradients, case.inputs, strict=True) if g is not None]
    return torch.stack([nothing, *along]).sum(0)


def listed(case: Known) -> dict[Blocks, Tensor]:
    """The same of the form's own paths, one by one."""
    paths = all_paths(case.form, case.inputs, target=1, linearize="jacobian")
    assert len(paths.values) == sum(case.form.path_counts())
    found: dict[Blocks, Tensor] = {}
    for mask, value in zip(paths.masks.tolist(), paths.values, strict=True):
        sets = frozenset(block for block, operand in enumerate(mask) if operand >= 0)
        found[sets] = found.get(sets, 0) + value
    return found

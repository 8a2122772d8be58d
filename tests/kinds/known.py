"""A network whose answer is known before it is traced: the table's entries, and the oracle of its own marks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from kinds.told import Marked, Told, first, of_ones
from networks import lively, normal
from oracles.structure import at_points, by_length
from unbraid import trace
from unbraid.errors import UnbraidError
from unbraid.form import ResidualForm

WIDTH = 4
ROWS, WORDS = normal(2, WIDTH, seed=1), normal(2, 3, WIDTH, seed=1)


@dataclass(frozen=True, eq=False)
class Known:
    """A network and what must be found in it.

    Attributes:
        make: the network.
        blocks: the names of the top-level blocks' marks, in order of execution.
        counts: how many paths pass m branches, m = 0, 1, ...
        or_counts: the same, where the definition leaves another answer open.
        or_opened: the same with the nested blocks in the place of those around them.
        inputs: what it is traced with.
        skips: the kind of each block's skip, one for all or one for each; "a|b" where the definition leaves it open.
        joins: how skip and branches come together, one for all or one for each.
        branches: how many branches each block has.
        nested: the names of the nested blocks' marks in order of execution, each with that of the block around it.
        nested_skips: their kinds.
        nested_joins: their joins.
        opened: the path counts with the nested blocks in the place of those around them.
        unsettled: whether the definition leaves open which sums inside of branches are blocks: then none is asked for.
        straight: whether all outside of branches is linear: then autograd knows the path of skips alone.
        refused: pieces of the lines of code of sums that are none, each of which must have its reason.
    """

    make: Callable[[], Told]
    blocks: str
    counts: Sequence[int]
    inputs: tuple[Tensor, ...] = (ROWS,)
    skips: str = "identity"
    joins: str = "sum"
    branches: Sequence[int] = ()
    nested: Mapping[str, str] = field(default_factory=dict)
    nested_skips: str = "identity"
    nested_joins: str = "sum"
    opened: Sequence[int] = ()
    or_counts: Sequence[int] = ()
    or_opened: Sequence[int] = ()
    unsettled: bool = False
    straight: bool = True
    refused: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return self.blocks.split()

    @property
    def every(self) -> list[str]:
        """The marks of all blocks by index: top-level ones first."""
        return [*self.names, *self.nested]

    def counted(self, opened: bool) -> set[str]:
        """Which marks are a step of a path."""
        return {*self.every} - {*self.nested.values()} if opened else {*self.names}

    @cached_property
    def network(self) -> Told:
        return lively(self.make(), scale=0.5)

    @cached_property
    def _attempt(self) -> ResidualForm | UnbraidError:
        try:
            return trace(self.network, self.inputs)
        except UnbraidError as fault:
            return fault

    @property
    def form(self) -> ResidualForm:
        if isinstance(self._attempt, UnbraidError):
            raise self._attempt
        return self._attempt

    def run(self, *inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return first(self.network(*inputs))

    def leaves(self) -> list[Tensor]:
        return [x.clone().requires_grad_() for x in self.inputs]

    def oracle(self, leaf: int, opened: bool) -> tuple[Tensor, Tensor]:
        """Values of t, and the gradient of the second score at one input, with the marks scaled by each."""
        marked, leaves = Marked(self.counted(opened)), self.leaves()
        scalar = self.network.told(marked, *leaves)[:, 1].sum()
        return at_points(marked.marks, scalar, leaves[leaf], marked.marks.met)


def counted_by_ones(case: Known, opened: bool) -> list[int]:
    """The path counts of a network in which every path has the gradient 1, by the oracle itself."""
    verbs, x = Marked(case.counted(opened)), case.inputs[0][:1].clone().requires_grad_()
    scalar = of_ones(case.network).told(verbs, x)[:, 1].sum()
    counts = [round(float(g.sum())) for g in by_length(verbs.marks, scalar, x)]
    return counts[: max(m + 1 for m, count in enumerate(counts) if count)]

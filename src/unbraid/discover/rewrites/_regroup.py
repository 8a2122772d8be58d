"""A join taken apart into blocks and what is left, with a node of the graph for each sum."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product

from torch import fx

from unbraid.discover._block_nodes import BlockNodes
from unbraid.discover._dataflow import Dataflow
from unbraid.discover._flattened_sums import Join, Term
from unbraid.discover._summands import Operand, summands
from unbraid.discover.kinds import Skip
from unbraid.discover.rewrites._graph_writer import Writer


@dataclass(frozen=True)
class Group:
    """The operands of a join that make up a block: unit·(S h + Σ branches).

    Attributes:
        fork: the tensor from which they part.
        kind: what the skip is.
        skip: the operand that carries the fork.
        factor: how often the join holds it, all copies together.
        copies: the same operand once more.
        beside: what belongs to the skip, too: scaled copies, and affine operands beside a projection.
        branches: the other operands.
        with_branches: for each branch what belongs to it, too: further gated copies of it, as f and −c·f.
        unit: by what the block's sum is multiplied in the join.
    """

    fork: fx.Node
    kind: Skip
    skip: Term
    factor: float
    copies: tuple[Term, ...]
    beside: tuple[Term, ...]
    branches: tuple[Term, ...]
    with_branches: tuple[tuple[Term, ...], ...]
    unit: float

    @property
    def operands(self) -> tuple[Term, ...]:
        return self.skip, *self.copies, *self.beside, *self.branches, *chain.from_iterable(self.with_branches)


class Regrouping:
    """The operands of a join, of which blocks become one operand each.

    Attributes:
        terms: the operands that are left.
    """

    def __init__(self, flow: Dataflow, join: Join) -> None:
        self.flow = flow
        self.join = join
        self.terms = [*join.terms]
        self._stands = True  # whether the model's own sum of the operands that are left stands

    def block(self, group: Group) -> BlockNodes:
        """Make a block of a group, and one operand of the block."""
        constants = self._shared_out(group)
        members = [*group.operands, *chain.from_iterable(constants.values())]
        total = self.join.holder(members, group.unit)
        if total is None and len(members) == len(self.terms) and math.isclose(group.unit, 1):
            total = self.join.head
        writer = Writer(self.flow, total or self.join.head)
        skip = self._skip(group, writer)
        branches = [
            self._branch([term, *more, *constants[term]], group.unit, writer)
            for term, more in zip(group.branches, group.with_branches, strict=True)
        ]
        if total is None or not _adds(total, {skip, *branches}):
            self._stands = self._stands and total is not None
            total = writer.sum([skip, *branches], at=total)
            # It stands for the addition in which skip and branch meet, not for one that adds a bias, or another trunk.
            meeting = self.join.meeting(group.skip, group.branches).meta
            total.meta.update({name: meeting[name] for name in ("stack_trace", "nn_module_stack") if name in meeting})
        places = frozenset[int]().union(*(term.places for term in members))
        self.terms = [term for term in self.terms if term not in members] + [Term(total, group.unit, places)]
        return BlockNodes(group.fork, total, skip, tuple(branches), group.kind)

    def finish(self) -> None:
        """Let the join's node add what is left, where the model's own sums stand no more."""
        if self._stands or self.terms[0].node is self.join.head:
            return
        writer = Writer(self.flow, self.join.head)
        terms = sorted(self.terms, key=lambda term: not isinstance(term.node, fx.Node))
        if len(terms) == 1:
            writer.scale(terms[0].node, terms[0].factor)
        else:
            writer.sum([self._multiple(term, 1.0, writer) for term in terms], at=self.join.head)

    @property
    def with_data(self) -> list[Term]:
        """The operands that are left and carry data."""
        return [term for term in self.terms if term.node in self.flow.carries]

    def meetings(self, terms: Sequence[Term]) -> Iterator[fx.Node]:
        """The additions of the model in which some operands meet, from the innermost on; a sum of n is n − 1."""
        home: dict[int, Term] = {}
        for term in terms:
            home |= dict.fromkeys(term.places, term)
        for node, added in reversed([*self.join.sums]):
            met = {home[place] for place in chain.from_iterable(added) if place in home}
            if len(met) > 1:
                yield from [node] * (len(met) - 1)
                first = met.pop()  # from here on they are one
                home = {place: first if term in met else term for place, term in home.items()}

    def _shared_out(self, group: Group) -> dict[Term, list[Term]]:
        """The constants of the join, each with the branch that it is added to, as a bias is, or else the nearest.

        What the model adds to the block's own sum is none of them: the trunk does that after the block.
        """
        shared: dict[Term, list[Term]] = {branch: [] for branch in group.branches}
        if self.join.holder(group.operands, group.unit) is not None:
            return shared
        with_data = self.with_data
        for term in self.terms:
            if term in with_data or term in group.operands:
                continue
            held = [branch for branch in group.branches if self.join.holder([branch, term], group.unit)]
            near = min(held or group.branches, key=lambda branch: _distance(branch, term))
            shared[near].append(term)
        return shared

    def _skip(self, group: Group, writer: Writer) -> fx.Node:
        parts = [group.skip, *group.copies, *group.beside]
        if (total := self.join.holder(parts, group.unit)) is not None:
            return total
        assert isinstance(group.skip.node, fx.Node)
        skip = writer.multiple(group.skip.node, group.factor / group.unit)
        return writer.sum([skip, *(self._multiple(term, group.unit, writer) for term in group.beside)])

    def _branch(self, terms: Sequence[Term], unit: float, writer: Writer) -> fx.Node:
        if (total := self.join.holder(terms, unit)) is not None:
            return total
        return writer.sum([self._multiple(term, unit, writer) for term in terms])

    def _multiple(self, term: Term, unit: float, writer: Writer) -> Operand:
        """An operand as often as the join holds it, divided by the unit."""
        if not isinstance(term.node, fx.Node):
            return term.node * term.factor / unit
        return self.join.holder([term], unit) or writer.multiple(term.node, term.factor / unit)


def _distance(one: Term, other: Term) -> int:
    return min(abs(a - b) for a, b in product(one.places, other.places))


def _adds(total: fx.Node, operands: set[fx.Node]) -> bool:
    """Whether a node of the model is the plain sum of these operands."""
    stack, met = [total], set[fx.Node]()
    while stack:
        node = stack.pop()
        if node in operands and node is not total:
            if node in met:
                return False
            met.add(node)
            continue
        added = summands(node)
        if len(added) < 2 or any(factor != 1 or not isinstance(below, fx.Node) for below, factor in added):
            return False
        stack += [below for below, _ in added if isinstance(below, fx.Node)]
    return met == operands

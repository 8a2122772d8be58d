"""The sum that a tree of additions makes, flattened: what is added, and how many times.

    a − (b + 0.5·(c − d))          a, −1·b, −0.5·c, 0.5·d

Bracketing, order and spelling are gone then, and one rule can judge all operands of a sum together. A sum inside that
somebody else reads, too, is an operand like any other. The tree is kept: where a node of the model holds the sum of
just those operands that make up a block, it serves, and nothing is computed in another way than the model does.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain

from torch import fx

from unbraid.discover._dataflow import same_shape
from unbraid.discover._summands import Operand, summands
from unbraid.graph.questions import values_read


@dataclass(frozen=True, eq=False)
class Term:
    """What a sum holds `factor` times.

    Attributes:
        node: a tensor, or a number.
        factor: how many times it is added.
        places: which of the join's operands it stands for: itself, or all that a block adds.
    """

    node: Operand
    factor: float
    places: frozenset[int]


@dataclass(eq=False)
class _Part:
    """A node of the tree, held `factor` times by the sum, with the range of its operands."""

    node: Operand
    factor: float
    alone: bool  # whether nobody else reads it, nor a sum that holds it
    parts: list["_Part"] = field(default_factory=list)
    first: int = 0
    last: int = 0


class Join:
    """A sum with its operands.

    Args:
        head: the node that holds the sum.
        closed: sums inside that count as operands.

    Attributes:
        head: the node that holds the sum.
        terms: the operands, from left to right.
    """

    def __init__(self, head: fx.Node, closed: Collection[fx.Node] = ()) -> None:
        self.head = head
        self._parts = _tree(head, closed)
        leaves = [part for part in self._parts if not part.parts]
        for place, leaf in enumerate(leaves):
            leaf.first, leaf.last = place, place
        for part in reversed(self._parts):
            if part.parts:
                part.first, part.last = part.parts[0].first, part.parts[-1].last
        self.terms = [Term(leaf.node, leaf.factor, frozenset((leaf.first,))) for leaf in leaves]

    @property
    def sums(self) -> Iterator[tuple[fx.Node, list[frozenset[int]]]]:
        """The additions of the tree from the head downwards, each with the places of what it adds."""
        for part in self._parts:
            if len(part.parts) > 1 and isinstance(part.node, fx.Node):
                yield part.node, [frozenset(range(below.first, below.last + 1)) for below in part.parts]

    @property
    def inner(self) -> list[tuple[fx.Node, list[Term]]]:
        """The sums inside, each with its operands, the innermost first."""
        sums = []
        for part in reversed(self._parts[1:]):
            if len(part.parts) > 1 and isinstance(part.node, fx.Node):
                sums.append((part.node, self.terms[part.first : part.last + 1]))
        return sums

    @property
    def opened(self) -> Iterator[fx.Node]:
        """The nodes whose operands are those of the sum: additions, and multiples of them."""
        yield from (part.node for part in self._parts if part.parts and isinstance(part.node, fx.Node))

    def meeting(self, term: Term, others: Collection[Term]) -> fx.Node:
        """The innermost addition of the model that adds a term and one of others."""
        places = set[int]().union(*(other.places for other in others))
        met = self.head
        for node, added in self.sums:
            below = frozenset().union(*added)
            if not below.isdisjoint(term.places) and not below.isdisjoint(places):
                met = node
        return met

    def holder(self, terms: Collection[Term], unit: float) -> fx.Node | None:
        """The node of the model that holds the sum of these terms, each divided by `unit`."""
        places = sorted(chain.from_iterable(term.places for term in terms))
        for part in self._parts:
            fits = (part.first, part.last) == (places[0], places[-1]) and len(places) == part.last - part.first + 1
            if fits and isinstance(part.node, fx.Node) and math.isclose(part.factor, unit):
                return part.node
        return None


def _tree(head: fx.Node, closed: Collection[fx.Node]) -> list[_Part]:
    """The parts of a sum, each before its own, from left to right."""
    parts, stack = [], [_Part(head, 1.0, True)]
    while stack:
        part = stack.pop()
        parts.append(part)
        added = [] if part.node in closed else _opened(part, head)
        part.parts = [_Part(node, part.factor * factor, part.alone and read_once(node)) for node, factor in added]
        stack += reversed(part.parts)
    return parts


def _opened(part: _Part, head: fx.Node) -> list[tuple[Operand, float]]:
    if not isinstance(part.node, fx.Node):
        return []
    added = summands(part.node)
    if part.node is head:
        return added
    same = same_shape(part.node, head) and part.node.meta["val"].dtype == head.meta["val"].dtype
    # What others read, too, is a tensor of its own: in h = 6·x, h + f(h), or h = x.clone(), h is the fork.
    return added if same and part.alone else []


def read_once(node: Operand) -> bool:
    """Whether one operator alone reads the elements of a tensor."""
    return isinstance(node, fx.Node) and sum(node in values_read(user) for user in node.users) == 1


def joins(graph: fx.Graph) -> Iterator[Join]:
    """Every sum of at least two tensors that is no part of a larger one, in order of execution."""
    inside = set[fx.Node]()
    largest = list[Join]()
    for node in reversed(graph.nodes):
        if node not in inside and _adds(node):
            join = Join(node)
            inside.update(join.opened)
            largest.append(join)
    return reversed(largest)


def _adds(node: fx.Node) -> bool:
    """Whether a node is a sum of at least two tensors, or takes such a sum off: −(f − x)."""
    added = summands(node)
    if len(added) == 1 and added[0][1] < 0 and read_once(added[0][0]):
        (operand, _) = added[0]
        assert isinstance(operand, fx.Node)
        added = summands(operand)
    return sum(isinstance(operand, fx.Node) for operand, _ in added) > 1

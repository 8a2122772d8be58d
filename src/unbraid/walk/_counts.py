"""How many paths there are, by length: the walk with integer polynomials in the place of cotangents.

A path is a set of choices. Two routes through the graph that make the same choices are one path: they can part inside a
shared norm, or inside a block that is not counted. `Counts` therefore joins by union, under the choice made last.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeAlias

from unbraid.graph import Add, Graph, Segment
from unbraid.walk._lengths import Lengths
from unbraid.walk._walk import walk

Coefficients: TypeAlias = tuple[int, ...]
Choice: TypeAlias = tuple[int, int] | None  # a block and the operand by which a path passes it; None at the output
Tally: TypeAlias = Mapping[Choice, Coefficients]


@dataclass(frozen=True)
class Counts:
    """The algebra of integer polynomials: the coefficient of t^m is the number of paths that pass m branches.

    Two routes that make the same choices are one path: they can part inside a segment that several readers share, or in
    a block that is not counted. So what is carried is the polynomial of the choices so far, under the choice made last,
    and joining two streams is a union, which counts a choice once however often it arrives.

    Attributes:
        graph: the graph that is walked.
        lengths: what counts as length.
    """

    graph: Graph
    lengths: Lengths

    def seed(self) -> Tally:
        """One path of length 0."""
        return {None: (1,)}

    def plus(self, a: Tally, b: Tally) -> Tally:
        """The union."""
        return {**a, **b}

    def enter(self, add: Add, operand: int, value: Tally) -> Tally:
        """All paths that arrive at a block that counts make this choice next."""
        if not self.lengths.counts(add):
            return value
        return {(add.block, operand): (0,) * self.lengths.of(add, operand) + total(value)}

    def pull(self, segment: Segment, values: tuple[Tally | None, ...]) -> tuple[Tally | None, ...]:
        """The same paths at every input that data pass, be it as a choice alone."""
        joined: dict[Choice, tuple[int, ...]] = {}
        for value in values:
            joined.update(value or {})
        return tuple(joined if passes else None for passes in self.graph.passes(segment))


def total(tally: Tally) -> Coefficients:
    """The sum of the polynomials of all origins."""
    if len(tally) == 1:
        return next(iter(tally.values()))
    return tuple(map(sum, zip_longest(*tally.values(), fillvalue=0)))


def path_counts(graph: Graph, lengths: Lengths, output: str, *places: str) -> list[int]:
    """The number of paths to an output from some places, by length: exact integers, binomials in a chain.

    Args:
        graph: the graph.
        lengths: what counts as length.
        output: the stream at which the paths end.
        places: where they begin; by default at the sources.
    """
    counts = Counts(graph, lengths)
    tallies_by_place = walk(graph, counts, {output: counts.seed()}, places or graph.sources)
    tallies: dict[Choice, tuple[int, ...]] = {}
    for tally in tallies_by_place.values():
        tallies.update(tally)
    return list(total(tallies))

"""Which operands of a join may be its skip, and where each meets what the others are computed from.

An operand is a candidate where its way up (`_routes`) meets a tensor, the *fork*, from which others are computed. The
candidates come from the strongest carrier to the weakest, and of equals the one with the nearest fork first.

A gate may read the branch: in σ(W f(x))·x + f(x) each operand is computed from what the other carries. The gated one
comes first then, as what it carries is the earlier: the skip is σ·x, and f(x) the branch.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from torch import Tensor, fx

from unbraid.discover._block_nodes import BlockNodes
from unbraid.discover._dataflow import Dataflow, same_shape
from unbraid.discover._element_maps import traced_size
from unbraid.discover._flattened_sums import Term
from unbraid.discover._routes import Step, met, through_one_factor, ways_up
from unbraid.discover._trunk_reached import reads_around
from unbraid.discover.rewrites._broadcast import spreads
from unbraid.graph.questions import Carrier, is_float, mixing, shape_only


@dataclass(frozen=True)
class Candidate:
    """An operand that may be the skip, with the place on its way at which it meets what each other one comes from.

    Attributes:
        skip: the operand.
        way: its way up.
        meets: for each other one the place on the way.
        nearest: where it is met first: before a mix, where the meeting asked for lies behind it, or the other itself
            where that lies on the way.
        by_gates: whether the others are computed from the fork by their gates alone, and gate what is earlier.
    """

    skip: Term
    way: Sequence[Step]
    meets: Mapping[Term, int]
    nearest: Mapping[Term, int]
    by_gates: bool = False

    @property
    def end(self) -> Step:
        """The farthest meeting: what hangs on the way before it hangs on it, too."""
        return self.way[max(self.meets.values())]

    @property
    def passed(self) -> list[fx.Node]:
        """The operators on the way to the fork."""
        return [step.node for step in self.way[: max(self.meets.values())]]

    @property
    def base(self) -> fx.Node:
        """The fork's elements as the skip has them, before it multiplies them."""
        base = self.skip.node
        for step in self.way[: max(self.meets.values())]:
            if not shape_only(step.node):
                base = self.way[self.way.index(step) + 1].node
        assert isinstance(base, fx.Node)
        return base


def candidates(
    flow: Dataflow,
    blocks: Mapping[fx.Node, BlockNodes],
    operands: Sequence[Term],
    weakest: Carrier,
    *,
    data: bool,
    held: bool,
) -> list[Candidate]:
    """The operands whose way meets what another is computed from, the strongest and nearest meeting first.

    Args:
        flow: the data flow of the graph.
        blocks: the blocks found so far, by their sums.
        operands: the operands of a join.
        weakest: the weakest carrier that their ways may pass.
        data: whether operands with data are asked for, or those of parameters alone: learned tokens.
        held: whether ways may pass norms, whose scale depends on the data, as if that scale were held.
    """
    ways, every = list[tuple[Term, list[Step]]](), dict[Term, list[list[Step]]]()
    for term in operands:
        if tensor_of(term) not in (flow.carries if data else flow.parametric):
            continue  # zeros that a state begins with, or a mask, are no token: they carry nothing
        for way in ways_up(flow, tensor_of(term), held=held):
            # The several results of one operator are no tensor from which skip and branch could part.
            tensors = [step for step in way if isinstance(step.node.meta.get("val"), Tensor)]
            every.setdefault(term, []).append(tensors)
            ways.append((term, [step for step in tensors if step.strength <= weakest]))
    marked = dict.fromkeys(step.node for _, way in ways for step in way)
    above = met(flow, [tensor_of(term) for term in operands], marked, blocks)
    possible = []
    for skip, way in ways:
        places: dict[Term, list[int]] = {}
        for term in operands:
            if term is not skip:
                met_at = [n for n, step in enumerate(way) if step.node in above[tensor_of(term)]]
                places[term] = [n for n in met_at if not _part_that_is_spread(flow, way[: n + 1], term)]
        # Before a mix, and behind it: W·h may be cut in a part that the branch reads and one that is the skip.
        for first in {0, _behind_mix(way)}:
            meets = {
                term: min(n for n in met_at if n >= first)
                for term, met_at in places.items()
                if met_at and met_at[-1] >= first
            }
            nearest = {term: _nearest(way, term, places[term]) for term in meets}
            candidate = Candidate(skip, way, meets, nearest)
            if meets and (candidate.end.strength is not Carrier.GATED or _carries_through_gates(flow, candidate)):
                by_gates = all(_gates_earlier(flow, every.get(term, ()), candidate.end.node) for term in meets)
                possible.append(replace(candidate, by_gates=by_gates))
    return sorted(possible, key=partial(_rank, flow))


def _nearest(way: Sequence[Step], term: Term, met_at: Sequence[int]) -> int:
    return min([n for n, step in enumerate(way) if step.node is tensor_of(term)] + [met_at[0]])


def _part_that_is_spread(flow: Dataflow, way: Sequence[Step], term: Term) -> bool:
    """Whether a way spreads its fork, over what comes from the rest of that of which the fork is a part or a mean, too.

    A mean that was taken off and is added again at the end is spread over all of the network; x[:, None] is spread over
    several copies of x with a branch each.
    """
    fork = way[-1].node
    if not any(spreads(step.node) and flow.data(step.node) for step in way[:-1]):
        return False
    part = fork
    while shape_only(part) and len(flow.data(part)) == 1:
        part = flow.data(part)[0]
    return any(reads_around(flow, tensor_of(term), fork, whole) for whole in flow.data(part))


def _carries_through_gates(flow: Dataflow, candidate: Candidate) -> bool:
    """Whether the fork is what is multiplied, and not what multiplies: it has the sum's sizes."""
    fork, skip = candidate.end.node, tensor_of(candidate.skip)
    fits = _elements(fork) >= _elements(skip)
    for product, factor in pairwise([*candidate.passed, fork]):
        if mixing(product) and not same_shape(factor, product):
            fits = any(same_shape(moved, skip) for moved in _moved(candidate))
            break
        fits = fits and (not mixing(product) or _elements(fork) == _elements(skip))
    return fits and through_one_factor(flow, candidate.way, fork)


def _moved(candidate: Candidate) -> Iterator[fx.Node]:
    """The fork, and what it is when its elements are moved back: streams may lie in the batch where they are added."""
    fork = candidate.end.node
    yield fork
    for step, above in pairwise(candidate.way[max(candidate.meets.values()) :]):
        if not shape_only(step.node) or _elements(above.node) != _elements(fork):
            return
        yield above.node


def _behind_mix(way: Sequence[Step]) -> int:
    """The place behind a way's first product of matrices; 0 where gates alone are passed: their parts stay apart."""
    first = next((n for n, step in enumerate(way) if step.strength is Carrier.GATED), 0)
    return first if first and mixing(way[first - 1].node) else 0


def _gates_earlier(flow: Dataflow, ways: Sequence[Sequence[Step]], fork: fx.Node) -> bool:
    """Whether an operand multiplies what is not computed from the fork, and from which the fork is."""
    for way in ways:
        carried = [step.node for step in way if step.strength is Carrier.GATED]
        if not carried or flow.order[carried[-1]] >= flow.order[fork]:
            continue
        apart = flow.order[carried[0]] < flow.order[fork] or fork not in flow.above(carried[0], fork)
        if apart and any(step in flow.above(fork, step) for step in carried):
            return True
    return False


def _rank(flow: Dataflow, candidate: Candidate) -> tuple[float, ...]:
    order, end = flow.order, candidate.end
    ranks = (end.strength, -order[end.node], len(candidate.way), order[tensor_of(candidate.skip)])
    return tuple(map(float, ranks))


def _elements(node: fx.Node) -> int:
    """How many elements a tensor has at the traced input."""
    return math.prod(map(traced_size, node.meta["val"].shape))


def is_like(term: Term, head: fx.Node) -> bool:
    """Whether an operand is a tensor of floats of the sum's shape."""
    return isinstance(term.node, fx.Node) and is_float(term.node) and same_shape(term.node, head)


def tensor_of(term: Term) -> fx.Node:
    assert isinstance(term.node, fx.Node)
    return term.node

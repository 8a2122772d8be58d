"""Every residual connection of a graph, by its data flow alone.

A *join* is a sum, flattened (`_flattened_sums`). Each of its operands is followed up the way that carries it
(`_routes`): by movements alone (identity), or by what is affine as well (projection). It is a candidate for the skip
where it meets a tensor, the *fork*, from which other operands are computed. Candidates are tried from the strongest to
the weakest, and of equals the one with the nearest fork first, so that what hangs together closely is a block of its
own:

    x + (y + f(y)) = (x + f(y)) + y, y = g(x):     a block over y, inside the branch of a block over x

Operands that are the skip once more, scaled by numbers or parameters, are collected into it; beside a projection, what
is affine in the fork as well. Of the others those that stand the tests of `_branch_rules` are branches. What is
constant goes with a branch, as a bias does. The rest stays in the sum, in which the block is now one operand, and so
on.

Norms may lie on a projection's skip: with batch norm alone, shortcuts with group norm would be refused although their
scale is one factor like any other, and the frozen form holds it. Skip and branch must read overlapping parts of the
fork: a recurrence over time steps adds tensors that were sliced from one, and is no residual connection.

A block's node must hold the plain sum of its operands: where the model has no such node, the sum is written anew.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, product

from torch import Tensor, fx

from unbraid.capture.provenance import where
from unbraid.discover._block import ALL, Skip
from unbraid.discover._block_nodes import BlockNodes
from unbraid.discover._branch_rules import AFFINE, APART, COPY, POINTWISE, Judge
from unbraid.discover._broadcast import spread_out, spreads
from unbraid.discover._concatenations import adjacent, as_one, concatenated, grow, is_concatenation
from unbraid.discover._dataflow import Dataflow, same_shape
from unbraid.discover._element_maps import Constant, no_constant, traced_size, unmoved
from unbraid.discover._flattened_sums import Join, Term, joins
from unbraid.discover._fused import unfuse
from unbraid.discover._gates import distribute, hold_gates
from unbraid.discover._moves_aside import move_aside
from unbraid.discover._nesting import nesting
from unbraid.discover._partial_writes import Written
from unbraid.discover._post_dominators import PostDominators
from unbraid.discover._recurrence import recurrences
from unbraid.discover._regroup import Group, Regrouping
from unbraid.discover._routes import Step, met, through_one_factor, ways_up
from unbraid.discover._trunk_reached import reads_around, trunk_way
from unbraid.errors import Refusal
from unbraid.graph.questions import Carrier, is_float, mixing, shape_only

NEITHER = "neither operand reaches, by shape-only or affine operations, a tensor from which the other is computed"
SPREAD = "its operands have different sizes: one is spread over the other"
NOTHING = "the copies of the tensor that both operands carry cancel: nothing is left of the skip"
RECURRENT = "a recurrence: a state that one module carries over positions, and no trunk of blocks"
OFFSET = "an offset or a reading: it begins or ends inside another block's branch, and is no trunk's sum"
LEFT_OUT = "its skip is of the kind {!r}, which was not looked for"
BETWEEN = "skip and branch are concatenated with another tensor between them"
NEGATIVE = "what carries the tensor that both share is subtracted: a negative multiple is no skip"


@dataclass(frozen=True)
class SearchResult:
    """All residual blocks in order of execution, and why the other additions are none.

    Attributes:
        blocks: the blocks.
        refusals: the other additions of data, each with the reason.
        flow: the data flow of the graph with the sums that were written anew.
    """

    blocks: tuple[BlockNodes, ...]
    refusals: tuple[Refusal, ...]
    flow: Dataflow


def find(flow: Dataflow, constant: Constant = no_constant, skips: Collection[str] = ALL) -> SearchResult:
    """Find the blocks; sums that no node holds are written into the graph.

    Args:
        flow: the data flow of the graph.
        constant: the value of a placeholder that holds a constant, by its name; None for others.
        skips: the kinds of skip connections to look for.
    """
    if unfuse(flow):
        flow = Dataflow(flow.graph, flow.state, flow.learned)
    spread_out(flow)
    if move_aside(flow, constant):
        flow = _tidied(flow)
    if Written(flow, constant).run():
        flow = _tidied(flow)
    for kind, rewrite in (("gate", distribute), ("concatenation", grow)):
        if kind in skips and rewrite(flow):
            flow = _tidied(flow)
    finder = _Finder(flow, Judge(flow, constant), skips)
    sums = {join.head: join for join in joins(flow.graph)}
    for node in list(flow.graph.nodes):
        if node in sums and node in flow.carries:
            finder.visit(sums[node])
        elif "concatenation" in skips and is_concatenation(node) and node in flow.carries:
            finder.visit_concatenation(node)
    finder.visit_again()
    chains = [] if "recurrent" in skips else finder.recurrences()
    refusals, carried_on = finder.told(chains), {*chain.from_iterable(chains)}
    blocks = [block for block in finder.blocks.values() if block.add not in carried_on]
    blocks = [hold_gates(flow, block) if block.kind in ("gate", "mix") else block for block in blocks]
    flow = _tidied(flow)
    through = PostDominators(flow.graph)
    while offsets := nesting(flow, blocks, through).offsets:
        refusals += [Refusal(line, OFFSET) for line in _lines(finder, [blocks[number].add for number in offsets])]
        blocks = [block for number, block in enumerate(blocks) if number not in offsets]
    return SearchResult(tuple(blocks), tuple(refusals), flow)


def _lines(finder: "_Finder", sums: Iterable[fx.Node]) -> Iterator[str]:
    """The additions of the model that make up some sums."""
    return chain.from_iterable(finder.lines[total] for total in sums)


def _tidied(flow: Dataflow) -> Dataflow:
    """The data flow of the graph without what nobody reads."""
    flow.graph.eliminate_dead_code(is_impure_node=lambda node: node.op in {"placeholder", "output"})
    return Dataflow(flow.graph, flow.state, flow.learned)


@dataclass(frozen=True)
class _Candidate:
    """An operand that may be the skip, with the place on its way at which it meets what each other one comes from."""

    skip: Term
    way: Sequence[Step]
    meets: Mapping[Term, int]

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


class _Finder:
    """Looks through the joins of a graph.

    Attributes:
        blocks: the blocks found, by their sums.
        lines: the additions of the model that make up each of these sums, as lines of its code.
        refused: the additions that are none, with the reason.
        forks: the tensor from which the operands of each sum come, block or none; known once all sums were visited.
    """

    def __init__(self, flow: Dataflow, judge: Judge, skips: Collection[str]) -> None:
        self.flow = flow
        self.skips = skips
        self.judge = judge
        self.blocks = judge.blocks
        self.lines: dict[fx.Node, list[str]] = {}
        self.forks: dict[fx.Node, fx.Node] = {}
        self._apart: dict[Join, list[tuple[fx.Node, str]]] = {}
        self.refused: list[tuple[fx.Node, str]] = []

    def recurrences(self) -> list[list[fx.Node]]:
        """The sums that are steps of each recurrence: blocks, or sums that are none, as an affine scan's."""
        refused = {node: self.flow.data(node) for node, _ in self.refused}
        first = {node: min(data, key=self.flow.order.__getitem__) for node, data in refused.items() if data}
        blocks = {total: block.fork for total, block in self.blocks.items()}
        self.forks = first | blocks
        # One statement may add several parts of a tensor: a scan has three steps at least.
        scans = [chained for chained in recurrences(self.flow, first) if max(Counter(map(where, chained)).values()) > 2]
        return recurrences(self.flow, blocks) + scans

    def told(self, chains: Sequence[Sequence[fx.Node]]) -> list[Refusal]:
        """The refusals: of what a recurrence does at each of its steps one for each line, however many steps it has."""
        order, told, steps = self.flow.order, list[Refusal](), dict[fx.Node, int]()
        reasons: list[dict[str, list[str]]] = [{} for _ in chains]
        for number, chained in enumerate(chains):
            blocks = [total for total in chained if total in self.blocks]
            reasons[number] |= {line: [RECURRENT] for line in _lines(self, blocks)}
            begins, ends = order[self.forks[chained[0]]], order[chained[-1]]
            among = [n for n, _ in self.refused if begins <= order[n] <= ends] if blocks else chained
            steps |= dict.fromkeys(among, number)
        recurrent = {line for lines in reasons for line in lines}
        for node, reason in self.refused:
            if node in steps:
                reasons[steps[node]].setdefault(where(node), []).append(reason)
            elif where(node) not in recurrent:
                told.append(Refusal(where(node), reason))
        said = {line: Counter(why).most_common(1)[0][0] for lines in reasons for line, why in lines.items()}
        said |= dict.fromkeys(recurrent, RECURRENT)  # a first step may be another than the rest
        return [*told, *(Refusal(line, why) for line, why in said.items())]

    def visit(self, join: Join) -> None:
        closed = set[fx.Node]()
        for inner, terms in join.inner:
            if inner not in closed and self._stands_alone(inner, terms, join.terms, closed):
                self.visit(Join(inner, closed))
                closed.add(inner)
        self._regroup(Join(join.head, closed) if closed else join)

    def visit_concatenation(self, node: fx.Node) -> None:
        """Take a concatenation apart into blocks and what lies beside them."""
        total: fx.Node | None = None
        while total is not node:
            tensors = [tensor for tensor in concatenated(node)[0] if tensor in self.flow.carries and is_float(tensor)]
            terms = [Term(tensor, 1.0, frozenset((place,))) for place, tensor in enumerate(tensors)]
            group = self._beside(node, terms) if len(terms) > 1 else ""
            if not isinstance(group, Group):
                self.refused += [(node, group)] if group else []
                return
            skip, branches = _tensor(group.skip), tuple(map(_tensor, group.branches))
            total = as_one(self.flow, node, [skip, *branches])
            self.blocks[total] = BlockNodes(group.fork, total, skip, branches, group.kind)
            self.lines[total] = [where(node)]

    def _beside(self, node: fx.Node, operands: Sequence[Term]) -> Group | str:
        """The operands of a concatenation that make up a block, or why there is none; "" where none share a tensor."""
        reason = ""
        candidates = self._candidates(operands, Carrier.PICK, data=True, held=True)
        # What is concatenated at once is one join: its skip is what most of it is computed from.
        for candidate in sorted(candidates, key=lambda candidate: -len(candidate.meets)):
            skip, objections = candidate.skip, dict[Term, str | None]()
            for term, place in candidate.meets.items():
                fork = candidate.way[place].node
                objection = self.judge.objection(fork, _tensor(skip), _tensor(term), "identity", held=True, added=True)
                behind = [step.node for step in candidate.way[place + 1 :] if step.strength is Carrier.PICK]
                # A coupling puts a half back beside what it made of both: the skip is a part, and others are read, too.
                coupled = any(reads_around(self.flow, _tensor(term), fork, whole) for whole in behind)
                objections[term] = objection or (APART if coupled else None)
            branches = [term for term, objection in objections.items() if objection is None]
            if branches and not adjacent(concatenated(node)[0], [*map(_tensor, (skip, *branches))]):
                reason = BETWEEN
            elif branches:
                end = candidate.way[max(candidate.meets[term] for term in branches)]
                kind: Skip = "identity" if end.strength is Carrier.SHAPE else "projection"
                return Group(end.node, kind, skip, 1.0, (), (), (*branches,), ((),) * len(branches), 1.0)
            else:
                # Nobody would take moved, scaled and pointwise parts side by side for a residual connection.
                said = [objection for objection in objections.values() if objection not in (POINTWISE, COPY, APART)]
                reason = next(filter(None, said), reason)
        return reason

    def visit_again(self) -> None:
        """Look once more at the sums of parts that have nothing in common, where blocks begin at these sums.

        A coupling of halves is none; but a network whose trunks are the halves of one tensor begins with such a sum.
        """
        for join in self._apart:
            if any(block.fork is join.head for block in self.blocks.values()):
                self.refused = [refused for refused in self.refused if refused not in self._apart[join]]
                self._regroup(join, apart=True)

    def _regroup(self, join: Join, *, apart: bool = False) -> None:
        """Take a join apart into blocks and what is left."""
        regrouping = Regrouping(self.flow, join)
        while True:
            group = self._group(join, regrouping.terms, apart=apart)
            if not isinstance(group, Group):
                break
            lines = [where(node) for node in regrouping.meetings(group.operands)]
            block = regrouping.block(group)
            self.blocks[block.add], self.lines[block.add] = block, lines
        regrouping.finish()
        refused = [(node, group) for node in regrouping.meetings(regrouping.with_data)]
        self.refused += refused
        if group == APART and not apart:
            self._apart[join] = refused

    def _stands_alone(
        self, inner: fx.Node, terms: Sequence[Term], all_terms: Sequence[Term], closed: Collection[fx.Node]
    ) -> bool:
        """Whether a sum inside another is a block by itself, and what is added to it the state of another trunk."""
        places = frozenset[int]().union(*(term.places for term in terms))
        others = [
            t for t in all_terms if t.places.isdisjoint(places) and t.node in self.flow.carries and _like(t, inner)
        ]
        moving = [t for t in others if trunk_way(self.flow, self.blocks, _tensor(t), Carrier.SCALED).carried]
        if not moving:
            return False
        inside = Join(inner, closed)
        group = self._group(inside, inside.terms)
        return isinstance(group, Group) and any(self.judge.merges(group.fork, _tensor(t), group.kind) for t in moving)

    def _group(self, join: Join, terms: Sequence[Term], *, apart: bool = False) -> Group | str:
        """The operands that make up a block, or why there is none."""
        operands = [term for term in terms if _like(term, join.head)]
        spread = len(operands) < 2 or any(
            spreads(_tensor(term)) for term in operands if _tensor(term) in self.flow.carries
        )
        reason = SPREAD if spread else NEITHER
        # A norm is next to affine: a skip may pass one, and yet beside a scaled skip it makes a branch of a pooling.
        # Whatever carries data comes before a learned token: a bias that tied layers add leads to all earlier ones.
        strengths = ((Carrier.SHAPE, True), (Carrier.MIXING, True), (Carrier.MIXING, False))
        for data, (weakest, held) in product((True, False), strengths):
            for candidate in self._candidates(operands, weakest, data=data, held=held):
                group = self._judged(candidate, operands, held=held, apart=apart)
                if isinstance(group, Group):
                    return group
                reason = group
        return self._from_elsewhere(join, operands) or reason

    def _from_elsewhere(self, join: Join, operands: Sequence[Term]) -> Group | None:
        """The state of a trunk, and beside it branches that come from other trunks alone: a, b = a + F(b), b + G(a)."""
        for skip in operands:
            # What a block leaves over that this very sum was regrouped for are no messages: they stand beside it.
            own = len(skip.places) == 1 or join.holder([skip], 1.0) is not None
            state = own and unmoved(_tensor(skip)) in self.blocks
            if not state or not math.isclose(skip.factor, 1):
                continue
            others = [term for term in operands if term is not skip]
            messages = [t for t in others if self.judge.message(_tensor(skip), _tensor(t), added=t.factor > 0)]
            if messages:
                return Group(_tensor(skip), "identity", skip, 1.0, (), (), (*messages,), ((),) * len(messages), 1.0)
        return None

    def _candidates(self, operands: Sequence[Term], weakest: Carrier, *, data: bool, held: bool) -> list[_Candidate]:
        """The operands, with data or without, whose way meets another's, the strongest and nearest meeting first."""
        ways = list[tuple[Term, list[Step]]]()
        for term in operands:
            if (_tensor(term) in self.flow.carries) is not data:
                continue
            for way in ways_up(self.flow, _tensor(term), held=held):
                # The several results of one operator are no tensor from which skip and branch could part.
                tensors = [step for step in way if isinstance(step.node.meta.get("val"), Tensor)]
                ways.append((term, [step for step in tensors if step.strength <= weakest]))
        marked = dict.fromkeys(step.node for _, way in ways for step in way)
        above = met(self.flow, [_tensor(term) for term in operands], marked, self.blocks)
        candidates = []
        for skip, way in ways:
            places: dict[Term, list[int]] = {}
            for term in operands:
                if term is not skip:
                    places[term] = [n for n, step in enumerate(way) if step.node in above[_tensor(term)]]
            # Before a gate, and behind it: W·h may be cut in a part that the branch reads and one that is the skip.
            for first in {0, next((n for n, step in enumerate(way) if step.strength is Carrier.GATED), 0)}:
                meets = {
                    term: min(n for n in met_at if n >= first)
                    for term, met_at in places.items()
                    if met_at and met_at[-1] >= first
                }
                candidate = _Candidate(skip, way, meets)
                if meets and (candidate.end.strength is not Carrier.GATED or self._carries_through_gates(candidate)):
                    candidates.append(candidate)
        return sorted(candidates, key=self._rank)

    def _carries_through_gates(self, candidate: _Candidate) -> bool:
        """Whether the fork is what is multiplied, and not what multiplies: it has the sum's sizes."""
        fork, skip = candidate.end.node, _tensor(candidate.skip)
        fits = _elements(fork) >= _elements(skip)
        for made, factor in pairwise([*candidate.passed, fork]):
            if mixing(made) and not same_shape(factor, made):
                fits = same_shape(fork, skip)
                break
            fits = fits and (not mixing(made) or _elements(fork) == _elements(skip))
        return fits and through_one_factor(self.flow, candidate.way, fork)

    def _rank(self, candidate: _Candidate) -> tuple[float, ...]:
        order, end = self.flow.order, candidate.end
        ranks = (end.strength, -order[end.node], len(candidate.way), order[_tensor(candidate.skip)])
        return tuple(map(float, ranks))

    def _judged(self, candidate: _Candidate, operands: Sequence[Term], *, held: bool, apart: bool) -> Group | str:
        """The group with this skip: with what carries the same fork through gates collected, if a branch is left."""
        copies = self._gated_copies(candidate, operands)
        group = self._collected(candidate, operands, copies, held=held, apart=apart)
        # x + g(x)·x: where nothing but gated copies of the fork is left, they are the branch (residual attention).
        if copies and not isinstance(group, Group):
            return self._collected(candidate, operands, [], held=held, apart=apart)
        return group

    def _gated_copies(self, candidate: _Candidate, operands: Sequence[Term]) -> list[Term]:
        if candidate.end.strength not in (Carrier.SHAPE, Carrier.GATED) or "gate" not in self.skips:
            return []
        fork, base = candidate.end.node, candidate.base
        skip = _tensor(candidate.skip)
        others = [t for t in operands if t is not candidate.skip and unmoved(_tensor(t)) not in (base, unmoved(skip))]
        products = [t for t in others if len(self.flow.data(_tensor(t))) > 1 or candidate.end.strength is Carrier.GATED]
        return [term for term in products if self.judge.gated(fork, base, _tensor(term))]

    def _collected(
        self, candidate: _Candidate, operands: Sequence[Term], gated: Sequence[Term], *, held: bool, apart: bool
    ) -> Group | str:
        skip, fork = candidate.skip, candidate.end.node
        rest = [term for term in operands if term is not skip and term not in gated]
        same = [term for term in rest if self.judge.elements(fork).same(_tensor(term), _tensor(skip))]
        moved_only = candidate.end.strength is Carrier.SHAPE
        scaled = [
            t for t in rest if moved_only and t not in same and self.judge.scaled(fork, _tensor(skip), _tensor(t))
        ]
        others = [term for term in candidate.meets if term not in (*same, *scaled, *gated)]
        factor = skip.factor + sum(term.factor for term in same)
        hidden = sum(term.factor * self.judge.copies(fork, _tensor(skip), _tensor(term)) for term in others)
        if math.isclose(factor + hidden, 0, abs_tol=1e-9):
            return NOTHING
        unit = _unit(factor, [term.factor for term in others])
        if factor / unit < 0:
            return NEGATIVE
        kind: Skip = "identity" if moved_only and not scaled and math.isclose(factor / unit, 1) else "projection"
        if gated or candidate.end.strength is Carrier.GATED:
            kind = "mix" if any(mixing(node) for node in candidate.passed) else "gate"
        if kind not in self.skips:
            return LEFT_OUT.format(kind)
        objections = {}
        for term in others:
            place = candidate.way[candidate.meets[term]].node
            added = term.factor / unit > 0
            objection = self.judge.objection(place, _tensor(skip), _tensor(term), kind, held=held, added=added)
            objections[term] = None if apart and objection == APART else objection
        branches = [term for term, objection in objections.items() if objection is None]
        if not branches:
            return next(filter(None, objections.values()), COPY)
        affine = [term for term, objection in objections.items() if objection == AFFINE]
        fork = candidate.way[max(candidate.meets[term] for term in (*branches, *affine))].node
        alone, more = self._by_what_they_gate(fork, branches)
        return Group(fork, kind, skip, factor, (*same,), (*scaled, *gated, *affine), alone, more, unit)

    def _by_what_they_gate(
        self, fork: fx.Node, branches: Sequence[Term]
    ) -> tuple[tuple[Term, ...], tuple[tuple[Term, ...], ...]]:
        """The branches, and with each those that are the same once more, gated: f − c·f is one branch."""
        together: dict[Term, list[Term]] = {}
        for term in branches:
            of = [t for t in together if self.judge.gated(fork, _tensor(t), _tensor(term))]
            back = [t for t in together if self.judge.gated(fork, _tensor(term), _tensor(t))]
            if of or back:
                together[(of or back)[0]].append(term)
            else:
                together[term] = []
        return (*together,), (*map(tuple, together.values()),)


def _elements(node: fx.Node) -> int:
    """How many elements a tensor has at the traced input."""
    return math.prod(map(traced_size, node.meta["val"].shape))


def _unit(factor: float, others: Sequence[float]) -> float:
    """What to divide a sum by so that its skip is the fork itself, as in 0.7·x + 0.7·f(x); else its sign."""
    sign = -1.0 if factor < 0 and all(other < 0 for other in others) else 1.0
    alike = all(math.isclose(abs(other), abs(factor)) for other in others)
    return abs(factor) * sign if alike else sign


def _like(term: Term, head: fx.Node) -> bool:
    """Whether an operand is a tensor of floats of the sum's shape."""
    return isinstance(term.node, fx.Node) and is_float(term.node) and same_shape(term.node, head)


def _tensor(term: Term) -> fx.Node:
    assert isinstance(term.node, fx.Node)
    return term.node

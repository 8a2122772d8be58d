"""Which operands of a join make up a block, and why others do not.

Of a sum, operands that are the skip once more, scaled by numbers or parameters or multiplied by gates, are collected
into the skip: x + t·f − t·x has the skip (1 − t)·x. Beside a projection, so is what is affine in the fork. Of the rest
those that stand the tests of `_branch_rules` are branches. Where nothing but gated copies of the fork is left, they are
the branch: x + g(x)·x is residual attention.

What is concatenated at once is one join, and its skip what most of it is computed from.

Norms may lie on a projection's skip: with batch norm alone, shortcuts with group norm would be refused although their
scale is one factor like any other, and the frozen form holds it. Skip and branch must read overlapping parts of the
fork: a coupling adds to one half of a tensor what it made of the other, and is no residual connection.
"""

import math
from collections.abc import Collection, Sequence
from itertools import product

from torch import fx

from unbraid.discover._branch_rules import AFFINE, APART, COPY, POINTWISE, Judge
from unbraid.discover._candidates import Candidate, candidates, is_like, tensor_of
from unbraid.discover._dataflow import Dataflow
from unbraid.discover._element_maps import unmoved
from unbraid.discover._flattened_sums import Join, Term
from unbraid.discover._recurrence import RECURRENT, carried_over
from unbraid.discover._trunk_reached import reads_around
from unbraid.discover.kinds import Skip
from unbraid.discover.rewrites._broadcast import spreads
from unbraid.discover.rewrites._concatenations import adjacent, concatenated, halves_beside, known_size
from unbraid.discover.rewrites._regroup import Group
from unbraid.graph.questions import Carrier, mixing

NEITHER = "neither operand reaches, by shape-only or affine operations, a tensor from which the other is computed"
SPREAD = "its operands have different sizes: one is spread over the other"
NOTHING = "the copies of the tensor that both operands carry cancel: nothing is left of the skip"
LEFT_OUT = "its skip is of the kind {!r}, which was not looked for"
BETWEEN = "skip and branch are concatenated with another tensor between them"
NEGATIVE = "what carries the tensor that both share is subtracted: a negative multiple is no skip"


class Grouper:
    """Finds the groups of operands that make up blocks.

    Args:
        flow: the data flow of the graph.
        judge: who says what is a branch; it knows the blocks found so far.
        skips: the kinds of skip connections to look for.
    """

    def __init__(self, flow: Dataflow, judge: Judge, skips: Collection[str]) -> None:
        self.flow = flow
        self.judge = judge
        self.skips = skips

    def of_sum(self, join: Join, terms: Sequence[Term], *, apart: bool = False) -> Group | str:
        """The operands of a sum that make up a block, or why there is none.

        Args:
            join: the sum.
            terms: those of its operands that are left.
            apart: whether operands may read parts of the fork that have nothing in common.
        """
        operands = [term for term in terms if is_like(term, join.head)]
        spread = len(operands) < 2 or any(
            spreads(tensor_of(term)) for term in operands if tensor_of(term) in self.flow.carries
        )
        reason = SPREAD if spread else NEITHER
        # A norm is next to affine: a skip may pass one, and yet beside a scaled skip it makes a branch of a pooling.
        # Whatever carries data comes before a learned token: a bias that tied layers add leads to all earlier ones.
        strengths = ((Carrier.SHAPE, True), (Carrier.MIXING, True), (Carrier.MIXING, False))
        for by_gates, data, (weakest, held) in product((False, True), (True, False), strengths):
            possible = candidates(self.flow, self.judge.blocks, operands, weakest, data=data, held=held)
            for candidate in (one for one in possible if one.by_gates is by_gates):
                group = self._judged(candidate, operands, held=held, apart=apart)
                if isinstance(group, Group):
                    return group
                reason = group
        return self._from_elsewhere(join, operands) or reason

    def of_concatenation(self, node: fx.Node, operands: Sequence[Term]) -> Group | str:
        """The operands of a concatenation that make up a block, or why there is none; "" where none share a tensor."""
        reason = ""
        weakest = Carrier.GATED if "gate" in self.skips else Carrier.PICK
        possible = candidates(self.flow, self.judge.blocks, operands, weakest, data=True, held=True)
        # What is concatenated at once is one join: its skip is what most of it is computed from.
        for candidate in sorted(filter(_lies_beside, possible), key=_beside):
            skip, objections = candidate.skip, dict[Term, str | None]()
            for term, place in candidate.meets.items():
                fork = candidate.way[place].node
                objection = self.judge.objection(
                    fork, tensor_of(skip), tensor_of(term), "identity", held=True, added=True
                )
                behind = [step.node for step in candidate.way[place + 1 :] if step.strength is Carrier.PICK]
                # A coupling puts a half back beside what it made of both: the skip is a part, and others are read, too.
                behind += halves_beside(fork, node)
                coupled = _replaces(node, tensor_of(skip), fork) or any(
                    reads_around(self.flow, tensor_of(term), fork, whole) for whole in behind
                )
                objections[term] = objection or (APART if coupled else None)
            branches = [term for term, objection in objections.items() if objection is None]
            if branches and not adjacent(concatenated(node)[0], [*map(tensor_of, (skip, *branches))]):
                reason = BETWEEN
            elif branches and "recurrent" not in self.skips and carried_over(self.flow, [*map(tensor_of, operands)]):
                return RECURRENT
            elif branches:
                end = candidate.way[max(candidate.meets[term] for term in branches)]
                kind: Skip = "identity" if end.strength is Carrier.SHAPE else "projection"
                kind = "gate" if _gated(candidate) else kind
                return Group(end.node, kind, skip, 1.0, (), (), (*branches,), ((),) * len(branches), 1.0)
            else:
                # Nobody would take moved, scaled and pointwise parts side by side for a residual connection.
                said = [objection for objection in objections.values() if objection not in (POINTWISE, COPY, APART)]
                reason = next(filter(None, said), reason)
        return reason

    def _from_elsewhere(self, join: Join, operands: Sequence[Term]) -> Group | None:
        """The state of a trunk, and beside it branches that come from other trunks alone: a, b = a + F(b), b + G(a)."""
        for skip in operands:
            # What a block leaves over that this very sum was regrouped for are no messages: they stand beside it.
            own = len(skip.places) == 1 or join.holder([skip], 1.0) is not None
            state = own and unmoved(tensor_of(skip)) in self.judge.blocks
            if not state or not math.isclose(skip.factor, 1):
                continue
            others = [term for term in operands if term is not skip]
            messages = [t for t in others if self.judge.message(tensor_of(skip), tensor_of(t), added=t.factor > 0)]
            if messages:
                return Group(tensor_of(skip), "identity", skip, 1.0, (), (), (*messages,), ((),) * len(messages), 1.0)
        return None

    def _judged(self, candidate: Candidate, operands: Sequence[Term], *, held: bool, apart: bool) -> Group | str:
        """The group with this skip: with what carries the same fork through gates collected, if a branch is left."""
        copies = self._gated_copies(candidate, operands)
        group = self._collected(candidate, operands, copies, held=held, apart=apart)
        # x + g(x)·x: where nothing but gated copies of the fork is left, they are the branch (residual attention).
        if copies and not isinstance(group, Group):
            return self._collected(candidate, operands, [], held=held, apart=apart)
        return group

    def _gated_copies(self, candidate: Candidate, operands: Sequence[Term]) -> list[Term]:
        if candidate.end.strength not in (Carrier.SHAPE, Carrier.GATED) or "gate" not in self.skips:
            return []
        fork, base = candidate.end.node, candidate.base
        skip = tensor_of(candidate.skip)
        others = [t for t in operands if t is not candidate.skip and unmoved(tensor_of(t)) not in (base, unmoved(skip))]
        products = [
            t for t in others if len(self.flow.data(tensor_of(t))) > 1 or candidate.end.strength is Carrier.GATED
        ]
        return [term for term in products if self.judge.gated(fork, base, tensor_of(term))]

    def _collected(
        self, candidate: Candidate, operands: Sequence[Term], gated: Sequence[Term], *, held: bool, apart: bool
    ) -> Group | str:
        skip, fork = candidate.skip, candidate.end.node
        rest = [term for term in operands if term is not skip and term not in gated]
        same = [term for term in rest if self.judge.elements(fork).same(tensor_of(term), tensor_of(skip))]
        moved_only = candidate.end.strength is Carrier.SHAPE
        scaled = [
            t for t in rest if moved_only and t not in same and self.judge.scaled(fork, tensor_of(skip), tensor_of(t))
        ]
        others = [term for term in candidate.meets if term not in (*same, *scaled, *gated)]
        factor = skip.factor + sum(term.factor for term in same)
        hidden = sum(term.factor * self.judge.copies(fork, tensor_of(skip), tensor_of(term)) for term in others)
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
        objections = dict[Term, str | None]()
        for term in others:
            objection = self._objection(candidate, term, kind, held=held, added=term.factor / unit > 0)
            objections[term] = None if apart and objection == APART else objection
        branches = [term for term, objection in objections.items() if objection is None]
        if not branches:
            return next(filter(None, objections.values()), COPY)
        affine = [term for term, objection in objections.items() if objection == AFFINE]
        fork = candidate.way[max(candidate.meets[term] for term in (*branches, *affine))].node
        alone, more = self._by_what_they_gate(fork, branches)
        return Group(fork, kind, skip, factor, (*same,), (*scaled, *gated, *affine), alone, more, unit)

    def _objection(self, candidate: Candidate, term: Term, kind: Skip, *, held: bool, added: bool) -> str | None:
        """Why an operand is no branch beside a candidate; None if it is one.

        Behind a mix may count only what reads another part before it: whatever else is said there is said for good.
        """
        skip, other = tensor_of(candidate.skip), tensor_of(term)
        near, asked = candidate.nearest[term], candidate.meets[term]
        if near < asked:
            first = candidate.way[near]
            before: Skip = "identity" if first.strength is Carrier.SHAPE else "projection"
            objection = self.judge.objection(first.node, skip, other, before, held=held, added=added)
            if objection not in (None, APART):
                return objection
        return self.judge.objection(candidate.way[asked].node, skip, other, kind, held=held, added=added)

    def _by_what_they_gate(
        self, fork: fx.Node, branches: Sequence[Term]
    ) -> tuple[tuple[Term, ...], tuple[tuple[Term, ...], ...]]:
        """The branches, and with each those that are the same once more, gated: f − c·f is one branch."""
        together: dict[Term, list[Term]] = {}
        for term in branches:
            of = [t for t in together if self.judge.gated(fork, tensor_of(t), tensor_of(term))]
            back = [t for t in together if self.judge.gated(fork, tensor_of(term), tensor_of(t))]
            if of or back:
                together[(of or back)[0]].append(term)
            else:
                together[term] = []
        return (*together,), (*map(tuple, together.values()),)


def _gated(candidate: Candidate) -> bool:
    return candidate.end.strength is Carrier.GATED


def _beside(candidate: Candidate) -> tuple[bool, bool, int]:
    return candidate.by_gates, _gated(candidate), -len(candidate.meets)


def _lies_beside(candidate: Candidate) -> bool:
    """Whether the skip of a concatenation is moved alone, or multiplied by gates."""
    if _gated(candidate):
        return not any(mixing(node) for node in candidate.passed)
    return candidate.end.strength <= Carrier.PICK


def _replaces(node: fx.Node, skip: fx.Node, fork: fx.Node) -> bool:
    """Whether a concatenation holds a part of the fork, and something else in place of the rest."""
    if not skip.meta["val"].ndim == fork.meta["val"].ndim == node.meta["val"].ndim:
        return False
    _, along = concatenated(node)
    part, before, after = (known_size(one.meta["val"].shape[along]) for one in (skip, fork, node))
    return part != before == after


def _unit(factor: float, others: Sequence[float]) -> float:
    """What to divide a sum by so that its skip is the fork itself, as in 0.7·x + 0.7·f(x); else its sign."""
    sign = -1.0 if factor < 0 and all(other < 0 for other in others) else 1.0
    alike = all(math.isclose(abs(other), abs(factor)) for other in others)
    return abs(factor) * sign if alike else sign

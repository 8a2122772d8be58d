"""Terms carried forward along the trunk: an affine segment J h + c takes term t to J t, and adds c to the constants."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from unbraid.discover import by_chance
from unbraid.errors import InexactError
from unbraid.form import ResidualForm
from unbraid.freeze import freeze
from unbraid.graph import SKIP, Add, Graph, Segment, differentiable, subgraph
from unbraid.graph.state import State
from unbraid.terms._route import CONSTANTS, INPUT, Route, Writer, parts_of, written


@dataclass(frozen=True, eq=False)
class FrozenTrunk:
    """One run of a form up to the stream, trunk and skips frozen: on them terms travel linearly.

    Attributes:
        form: the form, its casts widened.
        given: the values of the input streams.
        values: the value of every stream as far as the stream, and as far as every block's fork.
        graph: the graph as far as there, its trunk and skips frozen.
        state: the state that goes with it.
        by_branch: each branch is a term of its own, not each block.
    """

    form: ResidualForm
    given: Mapping[str, Any]
    values: Mapping[str, Any]
    graph: Graph
    state: State
    by_branch: bool = False

    @staticmethod
    def of(form: ResidualForm, given: Mapping[str, Any], by_branch: bool = False) -> "FrozenTrunk":
        """Run a form as far as the stream, keep all streams, and freeze what lies on trunk and skips."""
        top = {block.index for block in form.blocks}
        forks = (add.fork for add in form.adds if add.block in top)
        graph = subgraph(form.graph, tuple(dict.fromkeys((form.end, *forks))))
        on_trunk = [s.id for s in graph.segments if s.role != "branch" and (s.block is None or s.block in top)]
        values = dict(given)
        frozen, state = freeze(graph, form.state, given, on_trunk, seen=values.__setitem__)
        return FrozenTrunk(form, given, values, frozen, state, by_branch)

    def terms(self, stream: str) -> dict[Writer, Tensor]:
        """The terms of a stream by their writer; they sum to its value.

        They are let go of after their last reader: K blocks with a gate each would otherwise keep K²/2 tensors.
        """
        frozen = {segment.id: segment for segment in self.graph.segments}
        travels = Route(self.form)
        route = travels.to(stream)
        self._settled(stream, route)
        readers = Counter((stream, *chain.from_iterable(map(travels.carried, route))))
        known: dict[str, dict[Writer, Tensor]] = {}

        def take(wanted: str) -> dict[Writer, Tensor]:
            readers[wanted] -= 1
            if wanted not in known:
                return {INPUT if wanted in self.form.graph.reached else CONSTANTS: self.values[wanted]}
            return known[wanted] if readers[wanted] else known.pop(wanted)

        for step in route:
            if isinstance(step, Add):
                known[step.output] = self._sum(step, {} if step.skip is None else take(step.skip))
            else:
                inside = [
                    take(s) if carries else {}
                    for s, carries in zip(step.inputs, self.form.graph.passes(step), strict=True)
                ]
                pushed = push(frozen[step.id], self.state, self.values, inside)
                known.update(zip(step.outputs, pushed, strict=True))
        return take(stream)

    def _settled(self, stream: str, route: list[Segment | Add]) -> None:
        """Refuse a trunk that is frozen in another run than that of the terms, where the two do not draw alike."""
        ends = tuple(chain.from_iterable(step.outputs for step in route if isinstance(step, Segment)))
        if chance := by_chance(subgraph(self.form.graph, ends)):
            raise InexactError(
                f"unravel: what the trunk does to its terms must not change by chance.{chance}", where=stream
            )

    def _sum(self, add: Add, skip: dict[Writer, Tensor]) -> dict[Writer, Tensor]:
        """Equation 11.4: the skip's terms, and the branches as a term of their own, or as one each."""
        terms = {origin: add.embedded(SKIP, term) for origin, term in skip.items()}
        for origin, branches in parts_of(add, self.by_branch).items():
            terms[origin] = written(add, branches, self.values)
        return terms


def push(
    segment: Segment, state: State, values: Mapping[str, Any], terms: list[dict[Writer, Tensor]]
) -> list[dict[Writer, Tensor]]:
    """Terms through an affine segment A(h) = J h + c: each term t becomes J t, and c joins the constants.

    J t comes from the derivative of A, not from A(t) − c, so that no large constant is subtracted from a small term:
    g = J^T u is linear in u, and its transpose takes t to J t. One forward and one backward run serve all terms.
    """
    places = [i for i, arriving in enumerate(terms) if arriving and differentiable(values[segment.inputs[i]].dtype)]
    fixed = [values[stream] for stream in segment.inputs] + [state[name].detach() for name in segment.params]
    zeros = [torch.zeros_like(fixed[place]).requires_grad_() for place in places]
    writers = dict.fromkeys(chain.from_iterable(terms))
    with torch.enable_grad():
        arguments = list(fixed)
        for place, zero in zip(places, zeros, strict=True):
            arguments[place] = zero
        result = segment.code(*arguments)
        outputs = list(result) if len(segment.outputs) > 1 else [result]
        moving = [output for output in outputs if output.requires_grad]
        weights = [torch.zeros_like(output).requires_grad_() for output in moving]
        pulled = (
            torch.autograd.grad(moving, zeros, weights, create_graph=True, materialize_grads=True) if moving else ()
        )
    pushed_terms: list[dict[Writer, Tensor]] = [{} for _ in outputs]
    for writer in writers:
        if not moving:  # no value passes an index, whatever the terms of what chose it
            for travelled, output in zip(pushed_terms, outputs, strict=True):
                travelled[writer] = torch.zeros_like(output)
            continue
        along = [terms[place].get(writer, zero.detach()) for place, zero in zip(places, zeros, strict=True)]
        pushed = iter(torch.autograd.grad(pulled, weights, along, retain_graph=True, materialize_grads=True))
        for travelled, output in zip(pushed_terms, outputs, strict=True):
            travelled[writer] = next(pushed) if output.requires_grad else torch.zeros_like(output)
    for travelled, output in zip(pushed_terms, outputs, strict=True):
        if bool(output.any()):
            travelled[CONSTANTS] = output.detach() + travelled.get(CONSTANTS, torch.zeros_like(output))
    return pushed_terms

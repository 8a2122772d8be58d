from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor

from unbraid.form import ResidualForm
from unbraid.graph import Add, Graph, Segment, makes
from unbraid.walk import State, freeze, run

# Where a term comes from: the input, a block by its number, or a constant of the trunk.
Origin: TypeAlias = int | str
INPUT, CONSTANTS = "input", "constants"


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a form, with what its terms need.

    Attributes:
        form: the form, its casts widened.
        inputs: the values of the input streams.
        values: the value of every stream.
    """

    form: ResidualForm
    inputs: Mapping[str, Any]
    values: Mapping[str, Any]

    @staticmethod
    def of(form: ResidualForm, inputs: Mapping[str, Any]) -> "Run":
        """Run a form and keep all streams."""
        with torch.no_grad():
            values = run(form.graph, form.state, inputs, keep=form.graph.streams)
        return Run(form, inputs, values)

    @cached_property
    def maker(self) -> Mapping[str, Segment | Add]:
        """The step that makes each stream."""
        return {stream: step for step in self.form.graph.steps for stream in makes(step)}

    @cached_property
    def trunk(self) -> tuple[Graph, State]:
        """The graph with the segments of trunk and skips frozen: on them terms travel linearly."""
        top = {block.index for block in self.form.blocks}
        on_trunk = [s.id for s in self.form.segments if s.role != "branch" and (s.block is None or s.block in top)]
        return freeze(self.form.graph, self.form.state, self.inputs, on_trunk)

    def terms(self, stream: str) -> dict[Origin, Tensor]:
        """The terms of a stream by their origin; they sum to its value."""
        known: dict[str, dict[Origin, Tensor]] = {}
        frozen = {segment.id: segment for segment in self.trunk[0].segments}

        def of(wanted: str) -> dict[Origin, Tensor]:
            if wanted not in known:
                step = self.maker.get(wanted)
                if isinstance(step, Add) and step.block in self._top:
                    known[wanted] = self._sum(step, {} if step.skip is None else of(step.skip))
                elif isinstance(step, Segment) and self._after_a_block(wanted):
                    inside = [of(s) if s in self.form.graph.carried else {} for s in step.inputs]
                    pushed = push(frozen[step.id], self.trunk[1], self.values, inside)
                    known.update(zip(step.outputs, pushed, strict=True))
                else:
                    origin = INPUT if wanted in self.form.graph.carried else CONSTANTS
                    known[wanted] = {origin: self.values[wanted]}
            return known[wanted]

        return of(stream)

    @cached_property
    def _top(self) -> frozenset[int]:
        return frozenset(block.index for block in self.form.blocks)

    def _sum(self, add: Add, skip: dict[Origin, Tensor]) -> dict[Origin, Tensor]:
        """Equation 11.4: the skip's terms, and the branches as a term of their own."""
        branches = [self.values[stream] for stream in add.branches if stream is not None]
        return {**skip, add.block: sum(branches[1:], start=branches[0])} if branches else skip

    @cached_property
    def _behind(self) -> frozenset[str]:
        """The streams that a fork reaches along trunk and skips: from there on, terms are told apart."""
        forks = {add.fork for add in self.form.adds if add.block in self._top}
        behind: set[str] = set()
        for step in self.form.graph.steps:
            if isinstance(step, Add):
                if step.block in self._top:
                    behind.add(step.output)
            elif step.role != "branch" and any(s in behind or s in forks for s in step.inputs):
                behind.update(step.outputs)
        return frozenset(behind)

    def _after_a_block(self, stream: str) -> bool:
        return stream in self._behind


def push(
    segment: Segment, state: State, values: Mapping[str, Any], terms: list[dict[Origin, Tensor]]
) -> list[dict[Origin, Tensor]]:
    """Terms through an affine segment A(h) = J h + c: each term t becomes J t, and c joins the constants.

    J t is the derivative of A along t, so that no large constant is subtracted from a small term.
    """
    places = [i for i, found in enumerate(terms) if found]
    fixed = [values[stream] for stream in segment.inputs] + [state[name] for name in segment.params]

    def affine(*moving: Tensor) -> tuple[Tensor, ...]:
        arguments = list(fixed)
        for place, value in zip(places, moving, strict=True):
            arguments[place] = value
        made = segment.code(*arguments)
        return tuple(made) if len(segment.outputs) > 1 else (made,)

    zeros = tuple(torch.zeros_like(fixed[place]) for place in places)
    origins = list(dict.fromkeys(origin for place in places for origin in terms[place]))
    results: list[dict[Origin, Tensor]] = [{} for _ in segment.outputs]
    for origin in origins:
        along = tuple(terms[p].get(origin, zero) for p, zero in zip(places, zeros, strict=True))
        pushed = torch.func.jvp(affine, zeros, along)[1]
        for result, value in zip(results, pushed, strict=True):
            result[origin] = value
    with torch.no_grad():
        for result, constant in zip(results, affine(*zeros), strict=True):
            if bool(constant.any()):
                result[CONSTANTS] = result[CONSTANTS] + constant if CONSTANTS in result else constant
    return results

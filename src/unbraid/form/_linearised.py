"""A form linearised at one input: the run that every analysis of a target begins with.

At a given input a model is replaced by a linear map, in one of two ways. *Not frozen*, segments are what they are, and
cotangents that are pulled back through them give true derivatives. *Frozen*, every non-linear factor is held at its
value: the graph is affine, equals the model at this input, and values split over its paths. Either way the target is
the last segment of the graph, so that analyses follow one stream, [batch], whatever the model returns:

    form, args ── exact ── freeze ── record ── + target
                                               graph, tape    what is walked, and a run of it
                                               values         the target as the model computes it
                                               seed           the cotangent with which a walk begins
                                               gradients      ∂ Σ target / ∂ where paths and constants begin
                                               examples       whose each element is, so that products are by example
                                               constant       what no path from a source brings

A run may begin at a stream inside the form, as the head does at the end of the trunk: then the rest, `constant`, is
measured with that stream at zero.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from unbraid.form._form import ResidualForm
from unbraid.form._target_segment import TARGET, Function, append_target, explained, freeze_what_is_read
from unbraid.graph import Graph
from unbraid.graph.state import State
from unbraid.results import Examples, Target, check_sum, examples
from unbraid.walk import Cotangents, Lengths, Tape, constants, record, run, walk


@dataclass(frozen=True, eq=False)
class Linearised:
    """One run of a form, frozen or not, that ends in a target.

    Attributes:
        form: the form, its casts widened.
        given: the values of the streams at which it begins: the form's inputs, and `begin` if there is one.
        linear: the graph without the target, frozen or not.
        state: the state that goes with it.
        graph: the graph that is walked: the target is its last segment and only output.
        tape: a run of it.
        values: the target of each example as the model computes it, [batch].
        outputs: the values of the streams that the target reads, as the model computes them.
        frozen: whether non-linear factors are held, so that values split over paths.
        begin: the stream of the form at which it begins; None at the form's sources.
        nested: whether blocks inside branches are counted in the place of those around them.
    """

    form: ResidualForm
    given: Mapping[str, Any]
    linear: Graph
    state: State
    graph: Graph
    tape: Tape
    values: Tensor
    outputs: Mapping[str, Tensor]
    frozen: bool
    begin: str | None = None
    nested: bool = False

    @staticmethod
    def at(
        form: ResidualForm,
        args: Any,
        kwargs: Mapping[str, Any] | None,
        target: Target,
        *,
        frozen: bool = False,
        nested: bool = False,
    ) -> "Linearised":
        """Linearise a form at an input and run it.

        Args:
            form: a traced model, explaining one of its outputs.
            args: its positional inputs; a bare tensor means (tensor,).
            kwargs: its keyword inputs.
            target: see `Target`.
            frozen: whether non-linear factors are held.
            nested: whether blocks inside branches are counted in the place of those around them.

        Raises:
            TargetError: the target does not fit; it says which form would.
            InexactError: an operator has no rule.
        """
        exact = form.exact
        function = partial(explained, exact, target=target)
        linearised = Linearised.of(exact, exact.graph, exact.inputs(args, kwargs), function, frozen=frozen)
        return replace(linearised, nested=nested)

    @staticmethod
    def of(
        form: ResidualForm,
        graph: Graph,
        given: Mapping[str, Any],
        function: Function,
        *,
        frozen: bool = False,
        state: State | None = None,
        live: Mapping[str, Any] | None = None,
        begin: str | None = None,
    ) -> "Linearised":
        """The same of a part of a form's graph, with any function of its outputs.

        Args:
            form: the form, as its graph is to be run.
            graph: a part of its graph, or all of it.
            given: the values of the graph's inputs.
            function: the target; where the outputs are known, it is tried before anything is frozen.
            frozen: whether non-linear factors are held.
            state: that of a graph that is frozen already.
            live: the outputs as the model computes them, where they are known.
            begin: the stream among the inputs at which paths begin; None where they begin at the sources.
        """
        values = None if live is None else _valued(function, live)
        if frozen and state is None:
            graph, state, seen = freeze_what_is_read(graph, form.state, given, function, live)
            live = seen if live is None else live
        state = form.state if state is None else state
        run_of = record(graph, state, given)
        live = run_of.values if live is None else live
        values = _valued(function, live) if values is None else values
        tape, read = append_target(graph, run_of, function, values)
        outputs = {stream: live[stream] for stream in read}
        return Linearised(form, given, graph, state, tape.graph, tape, values, outputs, frozen, begin)

    @property
    def seed(self) -> Tensor:
        """The cotangent of the sum of the targets, with which a walk begins."""
        return torch.ones_like(self.tape.values[TARGET])

    @cached_property
    def lengths(self) -> Lengths:
        """What counts as the length of a path."""
        return self.form.lengths(self.nested)

    def gradients_at(self, streams: Iterable[str], weights: Tensor | None = None) -> dict[str, Tensor]:
        """The gradient of the targets' sum, weighted or not, at those of some streams that it reaches."""
        seed = self.seed if weights is None else weights.to(self.seed)
        return walk(self.graph, Cotangents(self.graph, self.tape), {TARGET: seed}, streams)

    def examples_of(self, gradients: Mapping[str, Tensor]) -> Examples:
        """The examples, told apart at some streams, by the gradients there."""
        return examples(lambda w: self.gradients_at(gradients, w), len(self.seed), gradients, self.form.precision)

    @cached_property
    def constants(self) -> list[tuple[str, Tensor]]:
        """What the frozen graph adds by itself, and where; not frozen, constants mean nothing, and there are none."""
        return list(constants(self.linear, self.state, self.tape.values)) if self.frozen else []

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """The whole gradient where paths begin, at the sources and wherever a constant joins, and at the outputs."""
        if self.begin is None:
            return self.gradients_at({*self.graph.sources, *(s for s, _ in self.constants), *self.outputs})
        reached = self.gradients_at([self.begin, *self.outputs])
        return reached if self.begin in reached else {**reached, self.begin: torch.zeros_like(self.given[self.begin])}

    @cached_property
    def examples(self) -> Examples:
        """The examples, told apart wherever products are taken."""
        return self.examples_of(self.gradients)

    @cached_property
    def target(self) -> Tensor:
        """What is explained: the target of each example, or the sum where they are not separate."""
        return self.examples.of(self.values)

    @cached_property
    def remainder(self) -> Tensor:
        """The target less ⟨gradient, outputs⟩, per example: 0 where it is linear."""
        linear = [self.examples.dot(s, self.gradients[s], value) for s, value in self.outputs.items()]
        return self.target - sum(linear[1:], start=linear[0])

    @cached_property
    def constant(self) -> Tensor:
        """What no path brings from where paths begin, [batch]: constants, or not frozen the rest of the target."""
        if not self.frozen:
            sources = [(source, self.tape.values[source]) for source in self.graph.sources]
            return self.target - self._along(sources, torch.zeros_like(self.target))
        if self.begin is None:
            return self._along(self.constants, self.remainder)
        nothing = {**self.given, self.begin: torch.zeros_like(self.given[self.begin])}
        with torch.no_grad():
            outputs = run(self.linear, self.state, nothing)
        return self._along([(stream, outputs[stream]) for stream in self.outputs], self.remainder)

    def check_sum(self, error: float, rule: str, *, where: str | None = None, departs: str = "they depart") -> None:
        """Refuse parts that do not sum to the whole; see `check_sum`."""
        where = where or self.begin or self.form.output
        check_sum(error, rule, precision=self.form.precision, graph=self.form.graph, where=where, departs=departs)

    def _along(self, pairs: Iterable[tuple[str, Tensor]], start: Tensor) -> Tensor:
        """⟨gradient, value⟩ over some streams, per example."""
        reached = [(stream, value) for stream, value in pairs if stream in self.gradients]
        return sum((self.examples.dot(s, self.gradients[s], value) for s, value in reached), start=start)


def _valued(function: Function, outputs: Mapping[str, Any]) -> Tensor:
    with torch.no_grad():
        return function(outputs)

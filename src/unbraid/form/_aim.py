"""A target as the last segment of a graph: whatever the model returns, analyses explain one stream, [batch]."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unbraid.errors import InexactError, TargetError
from unbraid.form._examples import Examples, examples
from unbraid.form._outputs import named_outputs
from unbraid.form._target import Target, constant, target_of
from unbraid.graph import Graph, Segment, Stream
from unbraid.walk import Cotangents, Tape, walk

if TYPE_CHECKING:
    from unbraid.form._form import ResidualForm

TARGET = "the target"
_NAMED = 5  # outputs that a message names


@dataclass(frozen=True, eq=False)
class Aim:
    """A target at one run of a graph.

    Attributes:
        graph: the graph, with the target as its last segment and only output.
        tape: the run, with the target's.
        values: the target of each example as the model computes it, [batch].
        outputs: the values of the streams that the target reads, as the model computes them.
        precision: the coarsest type in which anything of the data is computed.
    """

    graph: Graph
    tape: Tape
    values: Tensor
    outputs: Mapping[str, Tensor]
    precision: torch.dtype

    @staticmethod
    def at(
        graph: Graph,
        tape: Tape,
        function: Callable[[Mapping[str, Any]], Tensor],
        live: Mapping[str, Any] | None = None,
        precision: torch.dtype = torch.float64,
        values: Tensor | None = None,
    ) -> "Aim":
        """Evaluate a target of a graph's outputs, and lengthen graph and tape by it.

        Args:
            graph: a graph, frozen or not.
            tape: a run of it.
            function: the target as a function of the outputs' values by stream.
            live: the outputs as the model computes them, where the graph is frozen.
            precision: the coarsest type in which anything of the data is computed.
            values: the target of the live outputs, where it is known.

        Raises:
            TargetError: the target does not fit, or does not depend on what the model computes.
        """
        seen = tape.values if live is None else live
        with torch.no_grad():
            values = function(seen) if values is None else values
        leaves, result, read = _graded(graph, tape.values, function)
        if result.shape != values.shape:
            raise InexactError(
                f"freeze: the frozen model must give what the model gives, targets {list(values.shape)}; it gives "
                f"{list(result.shape)}.",
                where=", ".join(graph.outputs),
            )
        segment = Segment(
            id=TARGET,
            inputs=graph.outputs,
            outputs=(TARGET,),
            code=_code(function, graph.outputs),
            measured=frozenset(graph.outputs) - set(read),
        )
        lengthened = replace(
            graph,
            streams={**graph.streams, TARGET: Stream(TARGET, tuple(values.shape), values.dtype)},
            steps=(*graph.steps, segment),
            outputs=(TARGET,),
        )
        longer = Tape(
            lengthened,
            {**tape.values, TARGET: result.detach()},
            {**tape.leaves, TARGET: tuple(leaves[s] if s in read else None for s in graph.outputs)},
            {**tape.results, TARGET: (result,)},
        )
        return Aim(lengthened, longer, values, {stream: seen[stream] for stream in read}, precision)

    @property
    def seed(self) -> Tensor:
        """The cotangent of the sum of the targets."""
        return torch.ones_like(self.tape.values[TARGET])

    def gradients(self, streams: Iterable[str], weights: Tensor | None = None) -> dict[str, Tensor]:
        """The gradient of the targets' sum, weighted or not, at those of some streams that it reaches."""
        seed = self.seed if weights is None else weights.to(self.seed)
        return walk(self.graph, Cotangents(self.graph, self.tape), {TARGET: seed}, streams)

    def examples(self, gradients: Mapping[str, Tensor]) -> Examples:
        """The examples, told apart at some streams, by the gradients there."""
        return examples(lambda w: self.gradients(gradients, w), len(self.seed), gradients, self.precision)

    def remainder(self, found: Examples, gradients: Mapping[str, Tensor]) -> Tensor:
        """The target less ⟨gradient, outputs⟩, per example: 0 where it is linear."""
        linear = [found.dot(s, gradients[s], value) for s, value in self.outputs.items()]
        return found.of(self.values) - sum(linear[1:], start=linear[0])


def aim(form: "ResidualForm", graph: Graph, tape: Tape, target: Target, live: Mapping[str, Any] | None = None) -> Aim:
    """A target of a form's outputs at one run.

    Args:
        form: the form.
        graph: its graph, or its frozen one.
        tape: a run of that.
        target: see `Target`.
        live: the outputs as the model computes them, where the graph is frozen.

    Raises:
        TargetError: the target does not fit; it says which form would.
    """
    return Aim.at(graph, tape, lambda values: explained(form, values, target), live, form.precision)


def outputs_read(
    graph: Graph, values: Mapping[str, Any], function: Callable[[Mapping[str, Any]], Tensor]
) -> tuple[str, ...]:
    """The outputs on which a target depends: what others need, a loss beside the scores, need not be frozen.

    Args:
        graph: a graph, of the outputs.
        values: their values.
        function: the target as a function of them.

    Raises:
        TargetError: it depends on none, or does not fit.
    """
    return _graded(graph, values, function)[2]


def _graded(
    graph: Graph, values: Mapping[str, Any], function: Callable[[Mapping[str, Any]], Tensor]
) -> tuple[dict[str, Tensor], Tensor, tuple[str, ...]]:
    """Leaves at the outputs, the target as a function of them, and those that it depends on."""
    given = {stream: values[stream] for stream in graph.outputs}
    leaves = {s: x.detach().requires_grad_() for s, x in given.items() if s in graph.carried}
    with torch.enable_grad():
        result = function({**given, **leaves})
        if not result.requires_grad:
            raise constant()
        found = torch.autograd.grad(result.sum(), list(leaves.values()), retain_graph=True, allow_unused=True)
    read = tuple(stream for stream, gradient in zip(leaves, found, strict=True) if gradient is not None)
    if not read:
        raise constant()
    return leaves, result, read


def explained(form: "ResidualForm", values: Mapping[str, Any], target: Target, returned: Any = None) -> Tensor:
    """The target of a form's outputs, given by stream: one number for each example.

    A function receives what was returned, or else what the model would return, made of these values.

    Raises:
        TargetError: the target does not fit.
        InexactError: the form is one recorded run, and at these inputs the model's code takes another way.
    """
    tensor, counts = values[form.output], dict[int, None]()
    for stream in dict.fromkeys((form.output, *form.signature.streams())):
        known, value = form.streams[stream].shape, values.get(stream)
        if isinstance(value, Tensor) and value.ndim:
            counts[len(value)] = None
            counts |= {c: None for c, size in zip(value.shape, known, strict=False) if isinstance(size, str)}
    if returned is None:
        whole = all(stream in values for stream in form.signature.streams())
        returned = form.signature.result(values) if whole else tensor
    try:
        return target_of(returned, tensor, target, tuple(counts))
    except TargetError as error:
        names = [name for name, stream in named_outputs(form.signature.output) if stream != form.output]
        if callable(target) or not names:
            raise
        others = ", ".join(map(repr, names[:_NAMED]))
        raise TargetError(f"{error}\n  Of several outputs one is explained; output= names another: {others}.") from None


def _code(function: Callable[[Mapping[str, Any]], Tensor], outputs: tuple[str, ...]) -> Callable[..., Tensor]:
    def code(*values: Any) -> Tensor:
        return function(dict(zip(outputs, values, strict=True)))

    return code

"""A target as the last segment of a graph: whatever the model returns, analyses explain one stream, [batch]."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from unbraid.capture import named_outputs
from unbraid.errors import InexactError, TargetError
from unbraid.form._core import Form
from unbraid.freeze import freeze
from unbraid.graph import Graph, Segment, Stream, subgraph
from unbraid.graph.state import State
from unbraid.results import Target, constant, target_of
from unbraid.walk import Tape, run

Function: TypeAlias = Callable[[Mapping[str, Any]], Tensor]  # a target, of the values of a graph's outputs by stream
TARGET = "the target"
_NAMED = 5  # outputs that a message names


def append_target(graph: Graph, tape: Tape, function: Function, values: Tensor) -> tuple[Tape, tuple[str, ...]]:
    """Lengthen a graph and a run of it by a target, which becomes its only output.

    Args:
        graph: a graph, frozen or not.
        tape: a run of it.
        function: the target as a function of the outputs' values by stream.
        values: the target as the model computes it.

    Returns:
        The longer run, with its graph; and the outputs that the target reads.

    Raises:
        TargetError: the target does not fit, or does not depend on what the model computes.
    """
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
        size_only=frozenset(graph.outputs) - set(read),
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
    return longer, read


def freeze_what_is_read(
    graph: Graph, state: State, given: Mapping[str, Any], function: Function, live: Mapping[str, Any] | None
) -> tuple[Graph, State, dict[str, Any]]:
    """Freeze a graph as far as a target reads it: what other outputs need, such as a loss, may have no rule.

    Args:
        graph: the graph to freeze.
        state: its parameters.
        given: the values of its inputs.
        function: the target as a function of the outputs' values by stream.
        live: the outputs as the model computes them, where they are known.

    Returns:
        The frozen graph, its state, and its outputs as the model computes them in the run that it was frozen at.

    Raises:
        TargetError: the target does not fit, or does not depend on what the model computes.
        InexactError: an operator has no rule.
    """
    read = graph.outputs
    if len(read) > 1:
        if live is None:
            with torch.no_grad():
                live = run(graph, state, given)
        read = _graded(graph, live, function)[2]
    needed = [segment.id for segment in subgraph(graph, read).segments]
    seen = {stream: given[stream] for stream in graph.outputs if stream in given}

    def keep(stream: str, value: Any) -> None:
        if stream in graph.outputs:
            seen[stream] = value

    return *freeze(graph, state, given, needed, seen=keep), seen


def _graded(
    graph: Graph, values: Mapping[str, Any], function: Function
) -> tuple[dict[str, Tensor], Tensor, tuple[str, ...]]:
    """Leaves at the outputs, the target as a function of them, and those that it depends on."""
    given = {stream: values[stream] for stream in graph.outputs}
    leaves = {s: x.detach().requires_grad_() for s, x in given.items() if s in graph.carried}
    with torch.enable_grad():
        result = function({**given, **leaves})
        if not result.requires_grad:
            raise constant()
        gradients = torch.autograd.grad(result.sum(), list(leaves.values()), retain_graph=True, allow_unused=True)
    read = tuple(stream for stream, gradient in zip(leaves, gradients, strict=True) if gradient is not None)
    if not read:
        raise constant()
    return leaves, result, read


def explained(form: Form, values: Mapping[str, Any], target: Target, returned: Any = None) -> Tensor:
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


def _code(function: Function, outputs: tuple[str, ...]) -> Callable[..., Tensor]:
    def code(*values: Any) -> Tensor:
        return function(dict(zip(outputs, values, strict=True)))

    return code

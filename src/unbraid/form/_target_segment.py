"""A target as the last segment of a graph: whatever the model returns, analyses explain one stream, [batch]."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unbraid.capture import named_outputs
from unbraid.errors import InexactError, TargetError
from unbraid.form._core import Form
from unbraid.graph import Graph, Segment, Stream
from unbraid.results import Target, constant, target_of
from unbraid.walk import Tape

TARGET = "the target"
_NAMED = 5  # outputs that a message names


def append_target(
    graph: Graph, tape: Tape, function: Callable[[Mapping[str, Any]], Tensor], values: Tensor
) -> tuple[Tape, tuple[str, ...]]:
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


def _code(function: Callable[[Mapping[str, Any]], Tensor], outputs: tuple[str, ...]) -> Callable[..., Tensor]:
    def code(*values: Any) -> Tensor:
        return function(dict(zip(outputs, values, strict=True)))

    return code

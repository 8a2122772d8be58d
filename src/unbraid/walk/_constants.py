"""What a frozen graph adds by itself: biases, φ(0), learned tokens."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from unbraid.graph import Add, Graph, Segment
from unbraid.graph.state import State
from unbraid.walk._run import execute


def constants(graph: Graph, state: State, values: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """What a frozen graph adds by itself: each affine segment at zero, and streams without data that enter an addition.

    A bias, φ(0) or a norm's shift is part of the segment's value where its data are zero; a learned token is a stream
    that no source reaches; what an index looked up is the value of a segment through which no data pass as numbers.
    Each comes with the stream at which it joins: its paths to the output begin there.

    Args:
        graph: a frozen graph.
        state: its state.
        values: the value of every stream.

    Yields:
        The stream and the constant, which keeps its examples apart.
    """
    for step in graph.steps:
        if isinstance(step, Segment) and any(graph.passes(step)):
            if not set(step.outputs) <= set(graph.sources):
                fixed = zip(step.outputs, _at_zero(graph, step, state, values), strict=True)
                yield from ((stream, value) for stream, value in fixed if stream in graph.carried)
        elif isinstance(step, Add):
            for _, stream in step.operands:
                if stream not in graph.reached and not isinstance(graph.makers.get(stream), Add):
                    yield stream, values[stream]


def _at_zero(graph: Graph, segment: Segment, state: State, values: Mapping[str, Any]) -> tuple[Tensor, ...]:
    inputs = zip(segment.inputs, graph.data(segment), strict=True)
    empty = {stream: torch.zeros_like(values[stream]) if carries else values[stream] for stream, carries in inputs}
    with torch.no_grad():
        return execute(segment, state, empty)

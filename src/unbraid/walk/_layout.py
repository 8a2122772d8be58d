"""In which order the numbers of images lie in memory."""

from collections.abc import Iterator

import torch
from torch import fx

from unbraid.graph import Graph, Segment, name_of
from unbraid.walk._state import State, Streamed, device_of, joined

_CONVOLUTIONS = frozenset({"conv2d", "convolution"})


def channels_last(graph: Graph, state: State) -> State:
    """The state with the weights of image convolutions in the order in which the CPU is faster.

    A convolution whose weights have the channels of a position side by side in memory hands on such an output, and
    what follows keeps the order. Numbers change by rounding alone; but code that was recorded for the usual order may
    ask for a view that there is none of, and then it raises RuntimeError.

    Returns:
        The state itself where nothing is gained: without such convolutions, elsewhere than on the CPU, and where
        weights are read when they are needed.
    """
    if isinstance(state, Streamed) or device_of(state).type != "cpu":
        return state
    weights = {name: state[name] for segment in graph.segments for name in _convolving(segment)}
    images = {name: weight for name, weight in weights.items() if weight.ndim == 4}
    laid = {name: weight.contiguous(memory_format=torch.channels_last) for name, weight in images.items()}
    return joined(state, laid) if any(laid[name] is not weight for name, weight in images.items()) else state


def _convolving(segment: Segment) -> Iterator[str]:
    """The parameters that convolutions of a segment use as weights."""
    if not isinstance(segment.code, fx.GraphModule):
        return
    placeholders = [node for node in segment.code.graph.nodes if node.op == "placeholder"]
    named = dict(zip(placeholders[len(segment.inputs) :], segment.params, strict=True))
    for node in segment.code.graph.nodes:
        if node.op == "call_function" and name_of(node) in _CONVOLUTIONS and node.args[1] in named:
            yield named[node.args[1]]

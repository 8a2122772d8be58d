"""In which order the numbers of images lie in memory.

Sweeps lay images out with channels last where every operator is torch's own and speaks of indices. Convolutions in that
order are faster on the CPU, and numbers change by rounding. The comparison with a plain run cannot decide by itself: in
another order of blocks a step may meet another layout than in the variant that is compared. It catches views that the
layout has none of; stacks are then tried once more in the model's own order.
"""

from collections.abc import Iterator
from itertools import chain

import torch
from torch import fx

from unbraid.graph import Graph, Segment
from unbraid.graph.operators import Memory, operator_of
from unbraid.graph.state import State, Streamed, device_of, joined


def weights_channels_last(graph: Graph, state: State) -> State:
    """The state with the weights of image convolutions in the order in which the CPU is faster.

    A convolution whose weights have the channels of a position side by side in memory hands on such an output, and
    what follows keeps the order. Numbers change by rounding alone, for torch's operators speak of rows and columns; but
    code that was recorded for the usual order may ask for a view that there is none of, and then it raises
    RuntimeError.

    Returns:
        The state itself where nothing is gained: without such convolutions, elsewhere than on the CPU, and where
        weights are read when they are needed. Also where an operator reads numbers by their place in memory, or is not
        torch's own, so that nobody knows what it reads.
    """
    if isinstance(state, Streamed) or device_of(state).type != "cpu":
        return state
    if not all(_by_index(segment) for segment in graph.segments):
        return state
    names = chain.from_iterable(map(_convolving, graph.segments))
    weights = {name: state[name] for name in names}
    images = {name: weight for name, weight in weights.items() if weight.ndim == 4}
    laid = {name: weight.contiguous(memory_format=torch.channels_last) for name, weight in images.items()}
    return joined(state, laid) if any(laid[name] is not weight for name, weight in images.items()) else state


def _by_index(segment: Segment) -> bool:
    """Whether all that a segment calls is known to give the same wherever its operands lie in memory."""
    if not isinstance(segment.code, fx.GraphModule):
        return False
    called = [node for node in segment.code.graph.nodes if node.op not in {"placeholder", "output"}]
    return all(_torchs_own(node) and operator_of(node).memory is not Memory.READS_PLACES for node in called)


def _torchs_own(node: fx.Node) -> bool:
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target.namespace == "aten"
    # Arithmetic of sizes, and picking one of several results.
    return getattr(node.target, "__module__", None) in {"_operator", "math", "torch"}


def _convolving(segment: Segment) -> Iterator[str]:
    """The parameters that convolutions of a segment use as weights."""
    if not isinstance(segment.code, fx.GraphModule):
        return
    placeholders = [node for node in segment.code.graph.nodes if node.op == "placeholder"]
    named = dict(zip(placeholders[len(segment.inputs) :], segment.params, strict=True))
    for node in segment.code.graph.nodes:
        if node.op == "call_function" and operator_of(node).memory is Memory.IMAGES and node.args[1] in named:
            yield named[node.args[1]]

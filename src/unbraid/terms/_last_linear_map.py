"""The last linear map of a model, from features to scores, taken off the graph.

A language model's scores are by far its largest tensor, and most targets ask for a few of them. What they ask for is
computed from the features that the map reads. A function as target needs them all; of its gradient only the positions
that are not zero are pulled back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from unbraid.form import ResidualForm, explained
from unbraid.graph import Graph, Segment, Stream, needed, runnable
from unbraid.graph.operators import callee
from unbraid.results import Target, scalar


@dataclass(frozen=True)
class Readout:
    """scores = features · W^T + b, the last operator of a graph.

    Attributes:
        graph: what comes before it, with the features as its output.
        features: the stream that it reads.
        weight: the name of W in the state.
        bias: the name of b, if there is one.
    """

    graph: Graph
    features: str
    weight: str
    bias: str | None

    def target(self, form: ResidualForm, target: Target) -> Callable[[Mapping[str, Any]], Tensor]:
        """The target as a function of the features, given by stream.

        Args:
            form: its state holds W and b.
            target: of the scores: indices pick rows of W, so that no other scores are computed; of a function's
                gradient only the positions that count are pulled back.
        """
        weight = form.state[self.weight].detach()
        bias = None if self.bias is None else form.state[self.bias].detach()

        def of(values: Mapping[str, Any]) -> Tensor:
            features = values[self.features]
            if callable(target):
                return explained(form, {**values, form.output: _scores(features, weight, bias)}, target)
            return _picked(features, weight, bias, target)

        return of


def readout(graph: Graph, output: str) -> Readout | None:
    """Take the last linear map off; None where the output is made otherwise, or is not the only one."""
    if graph.outputs != (output,):
        return None
    segment = next((s for s in graph.segments if s.outputs == (output,)), None)
    if segment is None or not isinstance(segment.code, fx.GraphModule):
        return None
    end = next(node for node in segment.code.graph.nodes if node.op == "output").args[0]
    if not isinstance(end, fx.Node) or callee(end) is not torch.ops.aten.linear or end.kwargs:
        return None
    given = [node for node in segment.code.graph.nodes if node.op == "placeholder"]
    named = dict(zip(given, (*segment.inputs, *segment.params), strict=True))
    read, weights = end.args[0], end.args[1:]
    params = [named.get(weight) for weight in weights if isinstance(weight, fx.Node)]
    if any(name not in segment.params for name in params) or not params or named.get(read) in segment.params:
        return None
    weight, bias = str(params[0]), str(params[1]) if len(params) > 1 else None
    if read in named:
        before = replace(graph, steps=needed(graph.steps, (named[read],)), outputs=(named[read],))
        return Readout(before, named[read], weight, bias)
    features = f"{output} reads"
    short = _upto(segment, read, named, features)
    steps = tuple(short if step is segment else step for step in graph.steps)
    streams = {**graph.streams, features: Stream(features, (), graph.streams[output].dtype)}
    before = replace(graph, streams=streams, steps=needed(steps, (features,)), outputs=(features,))
    return Readout(before, features, weight, bias)


def _upto(segment: Segment, end: Any, named: dict[fx.Node, str], features: str) -> Segment:
    """The segment as far as one of its nodes; parameters that only the rest reads are not asked for."""
    code, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    wanted, waiting = set[fx.Node](), [end]
    while waiting:
        node = waiting.pop()
        if node not in wanted:
            wanted.add(node)
            waiting += node.all_input_nodes
    kept = [node for node in named if node in wanted or named[node] in segment.inputs]
    for node in (*kept, *(n for n in segment.code.graph.nodes if n in wanted and n not in named)):  # type: ignore[attr-defined]
        copies[node] = code.node_copy(node, copies.__getitem__)
    code.output(copies[end])
    params = tuple(named[node] for node in kept if named[node] in segment.params)
    upto = runnable(code, "features")
    return replace(segment, id=features, outputs=(features,), code=upto, params=params)


def _picked(features: Tensor, weight: Tensor, bias: Tensor | None, target: Target) -> Tensor:
    """One score per example: its row of W, times the features at its position."""
    # Scores that say which class they are of, without memory: what the target picks of them is the class.
    number = torch.arange(len(weight), dtype=torch.float64, device=features.device)
    scores = number.expand(*features.shape[:-1], len(weight))
    classes = scalar(scores, target).long()
    picked = torch.einsum("bw,bw->b", _rows(features, target), weight[classes])
    return picked if bias is None else picked + bias[classes]


def _rows(features: Tensor, target: Any) -> Tensor:
    """The features of each example at the position that the target names, where it names one."""
    if features.ndim != 3:
        return features
    if isinstance(target, list):
        position = torch.tensor([int(pair[0]) for pair in target], device=features.device)
    else:
        position = torch.as_tensor(target[0], device=features.device).expand(len(features))
    return features[torch.arange(len(features), device=features.device), position]


def _scores(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    scores: Tensor = _Scores.apply(features, weight, bias)  # type: ignore[no-untyped-call]
    return scores


class _Scores(torch.autograd.Function):
    """features · W^T + b, whose derivative leaves out the positions at which the cotangent is zero."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return torch.nn.functional.linear(features, weight, bias)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None, None]:
        (cotangent,) = cotangents
        asked = cotangent.ne(0).any(-1)
        gradient = cotangent.new_zeros((*cotangent.shape[:-1], ctx.weight.shape[1]))
        gradient[asked] = cotangent[asked] @ ctx.weight
        return gradient, None, None

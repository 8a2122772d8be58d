"""A parameter added to a stream: all that reads the stream sees the sum.

    h1 = h0 + f1(h0)                   h1, before steering = h0 + f1(h0)
                              →        h1 = h1, before steering + v           segment on the trunk, parameter v
    h2 = h1 + f2(h1)                   h2 = h1 + f2(h1)

The stream keeps its name and what makes it makes another, so that forks, outputs and readers mean what they meant. An
input, which the caller gives by its name, keeps it, and its readers take the sum.
"""

from collections.abc import Container
from dataclasses import replace

import torch
from torch import fx

from unbraid.graph._modules import runnable
from unbraid.graph._types import Graph, Segment, Step, makes
from unbraid.graph.edits import renamed


def steered(graph: Graph, stream: str, parameter: str) -> Graph:
    """The graph in which a parameter of the state is added to a stream."""
    if stream in graph.inputs:
        return _after_input(graph, stream, parameter)
    before = unused(f"{stream}, before steering", graph.streams)
    steps: list[Step] = []
    for step in graph.steps:
        if stream in makes(step):
            steps += [renamed(step, {}, {stream: before}), _segment(before, stream, parameter)]
        else:
            steps.append(step)
    # A path begins before the vector is added, which so is a constant of the trunk.
    sources = tuple(before if source == stream else source for source in graph.sources)
    streams = {**graph.streams, before: replace(graph.streams[stream], id=before)}
    return replace(graph, streams=streams, steps=tuple(steps), sources=sources)


def unused(name: str, names: Container[str]) -> str:
    """The name, with a number behind it where there is one such already."""
    number, free = 1, name
    while free in names:
        number, free = number + 1, f"{name} {number + 1}"
    return free


def _after_input(graph: Graph, stream: str, parameter: str) -> Graph:
    after = unused(f"{stream}, steered", graph.streams)
    steps = (_segment(stream, after, parameter), *(renamed(step, {stream: after}, {}) for step in graph.steps))
    streams = {**graph.streams, after: replace(graph.streams[stream], id=after)}
    return replace(graph, streams=streams, steps=steps)


def _segment(before: str, after: str, parameter: str) -> Segment:
    return Segment(f"steering of {after}, {parameter}", (before,), (after,), _ADDED, params=(parameter,))


def _added() -> fx.GraphModule:
    graph = fx.Graph()
    stream, vector = map(graph.placeholder, ("stream", "vector"))
    graph.output(graph.call_function(torch.ops.aten.add.Tensor, (stream, vector)))
    return runnable(graph, "steering")


_ADDED = _added()

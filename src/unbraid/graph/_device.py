"""A form on another device: its state, and what its code makes there."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

from unbraid.graph._types import Graph, Segment, Step


def on_device(graph: Graph, device: torch.device) -> Graph:
    """A graph whose segments make tensors on a device."""
    steps = tuple(_step(step, device) for step in graph.steps)
    return (
        graph if all(new is old for new, old in zip(steps, graph.steps, strict=True)) else replace(graph, steps=steps)
    )


def _step(step: Step, device: torch.device) -> Step:
    """A position made by `arange(..., device=...)` must be made where the weights are."""
    if not isinstance(step, Segment) or not isinstance(step.code, fx.GraphModule):
        return step
    if not _elsewhere(step.code.graph, device):
        return step
    code = fx.GraphModule(step.code, made_on(step.code.graph, device), class_name=f"on_{device.type}_{step.id}")
    return replace(step, code=code)


def made_on(graph: fx.Graph, device: torch.device) -> fx.Graph:
    """The operators, with the tensors that they make on a device; the graph itself where all are."""
    if not _elsewhere(graph, device):
        return graph
    moved = copy.deepcopy(graph)
    for node in moved.nodes:
        node.args = map_aggregate(node.args, lambda value: device if isinstance(value, torch.device) else value)
        node.kwargs = map_aggregate(node.kwargs, lambda value: device if isinstance(value, torch.device) else value)
    return moved


def _elsewhere(graph: fx.Graph, device: torch.device) -> bool:
    others: list[bool] = []

    def look(value: Any) -> Any:
        if isinstance(value, torch.device) and value != device:
            others.append(True)
        return value

    for node in graph.nodes:
        map_aggregate((node.args, node.kwargs), look)
    return bool(others)

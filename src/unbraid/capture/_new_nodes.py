"""New nodes of a captured graph that stand for what an old one did, with its place in the model's code."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


def scaled(graph: fx.Graph, like: fx.Node, tensor: Any, factor: Any) -> Any:
    """A tensor times a number, if that is not 1."""
    return tensor if factor == 1 else call(graph, like, aten.mul.Tensor, (tensor, factor))


def call(graph: fx.Graph, like: fx.Node, target: Any, args: Sequence[Any]) -> fx.Node:
    """A call of an operator at the place of another node."""
    node = graph.call_function(target, tuple(args))
    node.meta = copy.copy(like.meta)
    return node

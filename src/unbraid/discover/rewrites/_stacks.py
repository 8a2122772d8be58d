"""Stacks are concatenations of tensors that have a dimension more."""

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import torch
from torch import fx

from unbraid.discover._dataflow import Dataflow
from unbraid.discover._summands import summands
from unbraid.discover.rewrites._graph_writer import Writer
from unbraid.graph.operators import callee

aten = torch.ops.aten


def grow_stacks(flow: Dataflow) -> bool:
    """Write stacks of which one begins with all that another stacks as concatenations."""
    stacks: dict[int, list[fx.Node]] = {}
    for node in flow.graph.nodes:
        if is_stack(node) and node in flow.carries and node.users:
            stacks.setdefault(stacked_along(node), []).append(node)
    growing: dict[fx.Node, None] = {}
    for nodes in stacks.values():
        for before, after in pairwise(nodes):
            one, other = stacked(before), stacked(after)
            if len(one) < len(other) and other[: len(one)] == one:
                growing |= {before: None, after: None}
    return _concatenate(flow, list(growing))


def lift_stacks(flow: Dataflow) -> bool:
    """Write a stack of which one tensor is computed from another as a concatenation, unless it is summed again."""
    stacks = [node for node in flow.graph.nodes if is_stack(node) and node in flow.carries]
    whole = [node for node in stacks if hang_together(flow, stacked(node)) and not any(map(summands, node.users))]
    return _concatenate(flow, whole)


def hang_together(flow: Dataflow, tensors: Sequence[fx.Node]) -> bool:
    """Whether one of some tensors is computed from what another carries."""
    bases = [flow.moved(tensor) for tensor in tensors]
    pairs = product(bases, repeat=2)
    return len({*tensors}) == len(tensors) and any(
        below is not base and base in flow.carries and base in flow.above(below, base) for base, below in pairs
    )


def is_stack(node: fx.Node) -> bool:
    return node.op == "call_function" and callee(node) is aten.stack


def _concatenate(flow: Dataflow, stacks: Sequence[fx.Node]) -> bool:
    lifted: dict[tuple[fx.Node, int], fx.Node] = {}
    for node in stacks:
        along = stacked_along(node)
        writer, parts = Writer(flow, node), list[fx.Node]()
        for tensor in stacked(node):
            if (tensor, along) not in lifted:
                part = writer.call(aten.unsqueeze.default, (tensor, along), like=tensor)
                part.meta["val"] = tensor.meta["val"].unsqueeze(along)
                lifted[tensor, along] = part
            parts.append(lifted[tensor, along])
        node.target, node.args, node.kwargs = aten.cat.default, (parts, along), {}
    return bool(stacks)


def stacked(node: fx.Node) -> list[fx.Node]:
    tensors: Any = node.args[0]
    return list(tensors)


def stacked_along(node: fx.Node) -> int:
    given: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    return int(given) % node.meta["val"].ndim

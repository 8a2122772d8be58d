"""Operands that a sum spreads over the others are spread before it: one verdict, whichever way it is written.

x + f(x)                       f(x): [batch, 1, width], x: [batch, n, width]
x + f(x).expand_as(x)          the same
"""

from typing import Any

import torch
from torch import SymInt, Tensor, fx

from unbraid.discover._dataflow import Dataflow
from unbraid.discover._summands import summands
from unbraid.discover.rewrites._graph_writer import Writer
from unbraid.graph.operators import callee

aten = torch.ops.aten


def spread_out(flow: Dataflow) -> None:
    """Expand each operand of a sum of data to the sum's sizes, learned tokens from which another comes included."""
    for node in list(flow.graph.nodes):
        if callee(node) not in (aten.add, aten.sub, aten.rsub, aten.lerp):
            continue
        operands = [tensor for tensor, _ in summands(node) if isinstance(tensor, fx.Node)]
        if len(operands) < 2 or flow.carries.isdisjoint(operands):
            continue
        for tensor in operands:
            others = [other for other in operands if other is not tensor and other in flow.carries]
            counts = tensor in flow.carries or any(tensor in flow.above(other, tensor) for other in others)
            if others and counts and _smaller(tensor, node):
                _expand(flow, node, tensor, operands)


def spreads(node: fx.Node) -> bool:
    """Whether an operator repeats what it is given."""
    return callee(node) in (aten.expand, aten.expand_as) and _smaller(node.all_input_nodes[0], node)


def _smaller(tensor: fx.Node, node: fx.Node) -> bool:
    """Whether a tensor has other sizes than a node, leading ones left aside."""
    value, whole = tensor.meta.get("val"), node.meta.get("val")
    if not isinstance(value, Tensor) or not isinstance(whole, Tensor):
        return False
    pairs = zip(reversed(value.shape), reversed(whole.shape), strict=False)
    return value.ndim != whole.ndim or any(_is_one(size) and not _is_one(full) for size, full in pairs)


def _is_one(size: int | SymInt) -> bool:
    return isinstance(size, int) and size == 1


def _expand(flow: Dataflow, node: fx.Node, tensor: fx.Node, operands: list[fx.Node]) -> None:
    writer, sizes, shape = Writer(flow, node), list[Any](), node.meta["val"].shape
    for place, size in enumerate(shape, start=-len(shape)):
        read: Any = size
        if isinstance(size, SymInt):
            whole = next((o for o in operands if _size(o, place) == str(size)), None)
            if whole is None:
                return
            read = writer.call(aten.sym_size.int, (whole, whole.meta["val"].ndim + place), like=node)
            read.meta["val"] = size
        sizes.append(read)
    expanded = writer.call(aten.expand.default, (tensor, sizes), like=node)
    expanded.meta["val"] = node.meta["val"].to(tensor.meta["val"].dtype)
    node.replace_input_with(tensor, expanded)


def _size(node: fx.Node, place: int) -> str:
    shape = node.meta["val"].shape
    return str(shape[place]) if len(shape) >= -place else ""

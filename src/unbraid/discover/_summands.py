"""Sums in every spelling: what one operator adds, and how many times."""

from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from unbraid.graph.operators import callee
from unbraid.graph.questions import is_float

aten = torch.ops.aten

Operand: TypeAlias = fx.Node | float
Summands: TypeAlias = list[tuple[Operand, float]]

# They hand on their operand as it is, if its type and sizes stay, and in no other layout.
_SAME = (aten.alias, aten.clone, aten.to, aten._to_copy, aten.type_as)


def summands(node: fx.Node) -> Summands:
    """What a node is the sum of, each operand with its factor; a single one where it is a multiple; none of either."""
    if node.op != "call_function" or not isinstance(node.meta.get("val"), Tensor) or not is_float(node):
        return []
    added = _added(node)
    if not all(_number(factor) and (_number(operand) or _is_tensor(operand)) for operand, factor in added):
        return []
    return [
        (operand if isinstance(operand, fx.Node) else float(operand), float(factor))
        for operand, factor in added
        if operand != 0
    ]


def _added(node: fx.Node) -> list[tuple[Any, Any]]:
    called, (first, second) = callee(node), [*node.args, None, None][:2]
    if called in (aten.add, aten.sub, aten.rsub):
        alpha: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("alpha", 1)
        if not _number(alpha):
            return []
        return {
            aten.add: [(first, 1), (second, alpha)],
            aten.sub: [(first, 1), (second, -alpha)],
            aten.rsub: [(second, 1), (first, -alpha)],
        }[called]
    if called is aten.neg:
        return [(first, -1)]
    if called in _SAME:
        return [(first, 1)] if _same(node, first) and "memory_format" not in node.kwargs else []
    if called in (aten.mul, aten.div):
        return _multiple(node, first, second)
    if called is aten.lerp and _number(node.args[2]):
        weight: Any = node.args[2]
        return [(first, 1 - weight), (second, weight)]
    if called in (aten.sum, aten.mean):
        stacked = _stacked(node)
        return [(tensor, 1 / len(stacked) if called is aten.mean else 1) for tensor in stacked]
    return []


def _multiple(node: fx.Node, first: Any, second: Any) -> list[tuple[Any, Any]]:
    if callee(node) is aten.mul and _number(first):
        first, second = second, first
    if not _number(second) or second == 0 or not _same(node, first) or node.kwargs.get("rounding_mode"):
        return []
    return [(first, second if callee(node) is aten.mul else 1 / second)]


def _stacked(node: fx.Node) -> list[fx.Node]:
    """The tensors that a sum or a mean adds along the dimension in which they were stacked."""
    stack, dimensions = [*node.args, None][:2]
    keeps = len(node.args) > 2 and node.args[2]
    if not isinstance(stack, fx.Node) or callee(stack) is not aten.stack or keeps or node.kwargs.get("keepdim"):
        return []
    rank = stack.meta["val"].ndim
    along: Any = stack.args[1] if len(stack.args) > 1 else stack.kwargs.get("dim", 0)
    summed: Any = [dimensions] if isinstance(dimensions, int) else dimensions or []
    if len(summed) != 1 or summed[0] % rank != along % rank:
        return []
    tensors: Any = stack.args[0]
    return list(tensors) if all(_same(node, tensor) for tensor in tensors) else []


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, fx.Node) and isinstance(value.meta.get("val"), Tensor)


def _same(node: fx.Node, operand: Any) -> bool:
    """Whether an operand has the type and the rank of the result, so that it is added as it is."""
    if not _is_tensor(operand):
        return False
    value, result = operand.meta["val"], node.meta["val"]
    return bool(value.dtype == result.dtype and value.ndim == result.ndim)

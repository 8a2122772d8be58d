"""Noise: what a model draws, with mean zero, and multiplies: mean + ε·deviation is no residual connection.

A mask that is drawn, stochastic depth's or dropout's, is none: its mean is not zero, and a branch stays what it is.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from unbraid.graph.operators import Random, callee, operator_of
from unbraid.graph.questions import shape_only, values_read

aten = torch.ops.aten

# What a mean of zero passes.
_SCALES = (aten.mul, aten.neg, aten.masked_fill)
_ZEROS = (aten.zeros, aten.zeros_like, aten.new_zeros)


def is_noise(node: fx.Node) -> bool:
    """Whether a node is a product of which one factor is drawn, with mean zero."""
    seen, stack = set[fx.Node](), [node]
    while stack:
        factor = stack.pop()
        if factor in seen or factor.op != "call_function":
            continue
        seen.add(factor)
        if _mean(factor) == 0:
            return True
        if shape_only(factor) or callee(factor) in _SCALES:
            stack += values_read(factor)
        elif callee(factor) is aten.div:
            stack += values_read(factor)[:1]
    return False


def _mean(node: fx.Node) -> float | None:
    """The mean of what is drawn, then moved, shifted and scaled by numbers; None where it is not known."""
    if node.op != "call_function":
        return None
    drawn = operator_of(node).random
    if drawn is not None and drawn is not Random.SWITCHED:
        return _DRAWN[drawn](node)
    (*tensors,) = node.all_input_nodes
    if len(tensors) != 1 or not (shape_only(node) or callee(node) in _MOVES):
        return None
    mean = _mean(tensors[0])
    if mean is None or shape_only(node):
        return mean
    numbers = [float(argument) for argument in node.args if isinstance(argument, int | float)]
    return _MOVES[callee(node)](mean, *numbers, node.args[0] is tensors[0]) if len(numbers) < 2 else None


def _normal(node: fx.Node) -> float | None:
    """normal(mean, deviation, …), whose mean is a number or a tensor."""
    mean: Any = node.args[0]
    while isinstance(mean, fx.Node) and mean.op == "call_function" and shape_only(mean):
        mean = mean.args[0]
    if isinstance(mean, fx.Node):
        return 0.0 if callee(mean) in _ZEROS else None
    return float(mean)


def _uniform(node: fx.Node) -> float:
    """uniform(x, from, to) in place of the values of x, from 0 to 1 by default."""
    low, high = [*map(str, node.args[1:3]), "0", "1"][:2] if len(node.args) != 2 else (str(node.args[1]), "1")
    return (float(low) + float(high)) / 2


_DRAWN: dict[Random, Callable[[fx.Node], float | None]] = {
    Random.STANDARD: lambda _: 0.0,
    Random.UNIT: lambda _: 0.5,
    Random.NORMAL: _normal,
    Random.NORMAL_OVER: lambda node: float(str([*node.args[1:2], 0.0][0])),
    Random.UNIFORM_OVER: _uniform,
    Random.OTHER: lambda _: None,
}
# The mean afterwards: of the mean before, the number and whether what is drawn comes first.
_MOVES: dict[Any, Callable[..., float | None]] = {
    aten.add: lambda mean, number, first: mean + number,
    aten.sub: lambda mean, number, first: mean - number,
    aten.rsub: lambda mean, number, first: number - mean,
    aten.mul: lambda mean, number, first: mean * number,
    aten.div: lambda mean, number, first: mean / number if first and number else None,
    aten.neg: lambda mean, first: -mean,
}

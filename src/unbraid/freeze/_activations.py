"""Activations as gates: φ(z) = φ(0) + gate·z at the given z.

Near zero the gate is φ'(z), not φ'(0): at a kink, ReLU's, φ'(0) would lose half of the gates and cost 3e-4 in float32;
the derivative on z's own side equals the model.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg


def gate(z: Tensor, out: Tensor, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """A pointwise function as φ(z) = constant + gate·z: φ(0) + (φ(z) − φ(0))/z.

    Near z = 0, where the quotient loses its digits to φ(0), the derivative takes its place: φ'(0) at 0 itself, and
    beside it φ'(z), which is the same but for a kink at 0, where it is that of z's own side. Where φ(0) is not finite
    the function is a constant.

    Args:
        z: the argument.
        out: φ(z).
        function: φ.

    Returns:
        Gate and constant, of the shape of z.
    """
    eps = torch.finfo(out.dtype).eps
    near = z.abs() < eps**0.5
    at_zero, _ = _tangent(function, torch.zeros_like(z))
    beside, slope = _tangent(function, torch.where(near, z, torch.zeros_like(z)))
    faithful = (at_zero + slope * z - beside).abs() <= 4 * eps * (at_zero.abs() + beside.abs())
    quotient = (out - at_zero) / torch.where(z == 0, torch.ones_like(z), z)
    factor = torch.where(near & torch.isfinite(slope) & (faithful | (z == 0)), slope, quotient)
    finite = torch.isfinite(at_zero) & torch.isfinite(factor)
    return torch.where(finite, factor, torch.zeros_like(factor)), torch.where(finite, at_zero, out)


def evaluate(
    node: fx.Node, known: dict[fx.Node, Any], inside: Collection[fx.Node], values: Mapping[fx.Node, Any]
) -> Any:
    """A function that is spelled out in several nodes, at another value of its argument.

    Args:
        node: the last of its nodes.
        known: the argument's node, with its value.
        inside: the nodes that depend on the argument.
        values: the values of all others.
    """

    def value(argument: fx.Node) -> Any:
        if argument not in known:
            known[argument] = apply(argument) if argument in inside else values[argument]
        return known[argument]

    def apply(inner: fx.Node) -> Any:
        if inner.target is torch.ops.aten.detach.default:  # gradients end there, values do not
            return value(inner.args[0])  # type: ignore[arg-type]
        return inner.target(*map_arg(inner.args, value), **map_arg(inner.kwargs, value))  # type: ignore[operator]

    return value(node)


def _tangent(function: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    leaf = at.detach().clone().requires_grad_()
    with torch.enable_grad():
        value = function(leaf)
        slope: Tensor | None = None
        if value.requires_grad:
            with suppress(RuntimeError):  # torch has no derivative of what is constant between its steps
                (slope,) = torch.autograd.grad(value, leaf, torch.ones_like(value), allow_unused=True)
    return value.detach(), torch.zeros_like(at) if slope is None else slope

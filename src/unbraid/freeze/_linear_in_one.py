"""Operators that are linear in one operand once the others are held: gates, lengths, positions, what is solved."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import fx

from unbraid.freeze._freezer import Freezer
from unbraid.freeze._norms import filled
from unbraid.graph.operators import callee

aten = torch.ops.aten


def linear_in(*places: int) -> Callable[[Freezer, fx.Node], Any]:
    """The rule that keeps some operands, by their places, and holds what else carries data.

    Where none of them carries data, there is nothing to keep: the result is held.
    """

    def rule(freezer: Freezer, node: fx.Node) -> Any:
        kept = [node.args[place] for place in places if place < len(node.args)]
        if not any(freezer.carries(argument) for argument in kept):
            return freezer.hold(freezer.value(node))
        held = {
            argument: freezer.hold(freezer.value(argument)) for argument in freezer.data(node) if argument not in kept
        }
        arguments = [held.get(a, a) if isinstance(a, fx.Node) else a for a in node.args]
        settings = {key: held.get(a, a) if isinstance(a, fx.Node) else a for key, a in node.kwargs.items()}
        return freezer.call(node.target, *arguments, **settings)

    return rule


def glu(freezer: Freezer, node: fx.Node) -> fx.Node:
    """a·σ(b) with the gate held."""
    x, dim = filled(node, -1)[:2]
    half = freezer.value(x).shape[dim] // 2
    gate = freezer.value(x).narrow(dim, half, half).sigmoid()
    return freezer.call(aten.mul.Tensor, freezer.call(aten.narrow.default, x, dim, 0, half), freezer.hold(gate))


def cosine(freezer: Freezer, node: fx.Node) -> fx.Node:
    """Σ a·b / (‖a‖‖b‖) with both lengths held; where both carry data, each stays linear with weight one half."""
    a, b, dim, eps = filled(node, None, 1, 1e-8)[:4]
    values = [freezer.value(a), freezer.value(b)]
    whole = [value + torch.zeros_like(other) for value, other in (values, values[::-1])]
    lengths = [value.norm(dim=dim, keepdim=True).clamp_min(eps) for value in whole]
    scale = (lengths[0] * lengths[1]).reciprocal()
    live = [i for i, argument in enumerate((a, b)) if freezer.carries(argument)]

    def alone(place: int) -> fx.Node:
        weight = values[1 - place] * scale / len(live)
        product = freezer.call(aten.mul.Tensor, (a, b)[place], freezer.hold(weight))
        return freezer.call(aten.sum.dim_IntList, product, [dim])

    first, *others = [alone(place) for place in live]
    return freezer.call(aten.add.Tensor, first, *others) if others else first


def mean_beside(freezer: Freezer, node: fx.Node) -> tuple[Any, Any]:
    """Deviation and mean at once: a deviation is a length, which is held; the mean is linear."""
    x = node.args[0]
    deviation, mean = freezer.value(node)
    value = freezer.value(x)
    dims: Any = node.args[1] if len(node.args) > 1 and isinstance(node.args[1], list | tuple) else None
    over = list(dims or range(value.ndim))
    linear = freezer.call(aten.mean.dim, x, over, mean.ndim == value.ndim)
    return freezer.hold(deviation), linear


def scattered(freezer: Freezer, node: fx.Node) -> Any:
    """A sum or a mean of what arrives at a place is linear; the largest or smallest keeps its choice, ties share it."""
    target, dim, index, source, kind = cast("tuple[Any, int, Any, Any, str]", node.args[:5])
    if kind in ("sum", "mean"):
        return freezer.call(node.target, *node.args, **node.kwargs)
    if kind == "prod":
        raise freezer.refusal(node, " where it multiplies")
    into, out, given = freezer.value(target), freezer.value(node), freezer.value(source)
    where = freezer.value(index)
    if callee(node) is aten.index_reduce:
        where = where.reshape([-1 if d == dim % given.ndim else 1 for d in range(given.ndim)]).expand(given.shape)
    part = given[tuple(slice(size) for size in where.shape)]
    wins = (part == out.gather(dim, where)).to(out.dtype)
    included = bool(node.kwargs.get("include_self", node.args[5] if len(node.args) > 5 else True))
    untouched = torch.zeros_like(out).scatter_add(dim, where, torch.ones_like(part)) == 0
    own = ((into == out) & (untouched | included)).to(out.dtype)
    shares = (own + torch.zeros_like(out).scatter_add(dim, where, wins)).clamp_min(1)
    kept = freezer.call(aten.mul.Tensor, target, freezer.hold(own / shares))
    weights = torch.zeros_like(given)
    weights[tuple(slice(size) for size in where.shape)] = wins / shares.gather(dim, where)
    moving = freezer.call(aten.mul.Tensor, source, freezer.hold(weights))
    return freezer.call(aten.scatter_add.default, kept, dim, freezer.hold(where), moving)

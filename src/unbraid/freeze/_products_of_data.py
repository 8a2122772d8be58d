"""Of a product of data with data, the factor that passed a non-linearity is held; attention keeps its pattern."""

from typing import Any

import torch
from torch import fx

from unbraid.freeze._freezer import Freezer
from unbraid.graph.operators import operator_of, places_of, random

aten = torch.ops.aten


def product(freezer: Freezer, node: fx.Node) -> fx.Node:
    """The factor of the lowest level stays linear; n of one level do so in turn, each with weight 1/n."""
    row, factors = operator_of(node), _factors(node)
    beside = places_of(node, freezer.data(node)) - {row.factors, row.factors + 1, row.shifts}
    if beside and row.listed is None:
        raise freezer.refusal(node, " where more than two of its factors are computed from data")
    carrying = [i for i, factor in enumerate(factors) if freezer.carries(factor)]
    if len(carrying) < 2:
        return freezer.call(node.target, *node.args, **node.kwargs)
    lowest = min(freezer.level(factors[i]) for i in carrying)
    live = [i for i in carrying if freezer.level(factors[i]) == lowest]

    def alone(chosen: int) -> fx.Node:
        new = [freezer.hold(freezer.value(f)) if i in carrying and i != chosen else f for i, f in enumerate(factors)]
        args = [*node.args]
        if row.listed is not None:
            args[row.factors] = new
        else:
            args[row.factors : row.factors + len(new)] = new
        return freezer.call(node.target, *args, **node.kwargs)

    total, *others = [alone(chosen) for chosen in live]
    for other in others:
        total = freezer.call(aten.add.Tensor, total, other)
    return freezer.call(aten.mul.Tensor, total, 1 / len(live)) if others else total


def _factors(node: fx.Node) -> list[Any]:
    row = operator_of(node)
    if row.listed is not None:
        listed: Any = node.args[row.listed]
        return list(listed)
    return list(node.args[row.factors : row.factors + 2])


def division(freezer: Freezer, node: fx.Node) -> fx.Node:
    """a·(1/b) with b held where it carries data."""
    a, b = node.args[:2]
    if not freezer.carries(a) or node.kwargs.get("rounding_mode"):
        return freezer.hold(freezer.value(node))
    if not freezer.carries(b):
        return freezer.call(node.target, *node.args)
    return freezer.call(aten.mul.Tensor, a, freezer.hold(1 / freezer.value(b)))


def lerp(freezer: Freezer, node: fx.Node) -> fx.Node:
    """(1 − w)·a + w·b; a weight that carries data is held, being a gate."""
    a, b, weight = node.args
    held = freezer.hold(freezer.value(weight)) if freezer.carries(weight) else weight
    return freezer.call(node.target, a, b, held)


def dropout(freezer: Freezer, node: fx.Node) -> Any:
    """In train mode the mask that was drawn is held; a run tells that of `dropout` alone."""
    x = node.args[0]
    assert isinstance(x, fx.Node), "dropout takes a tensor"
    mask = freezer.masks.get(node)
    if mask is None and random(node):
        raise freezer.refusal(node, " in train mode")
    return freezer.linear(x) if mask is None else freezer.call(aten.mul.Tensor, x, freezer.hold(mask))


def attention(freezer: Freezer, node: fx.Node) -> fx.Node:
    """pattern·V with the pattern held: paths through queries and keys end there."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    query, key, value, mask = (freezer.value(given.get(name)) for name in names[:4])
    if given.get("dropout_p"):
        raise freezer.refusal(node, " with dropout; use eval mode")
    width, grouped = key.shape[-2], bool(given.get("enable_gqa"))
    # Attending to one-hot values gives the pattern itself, whatever the mask, the scale and the kernel.
    unit = torch.eye(width, dtype=value.dtype, device=value.device).expand(*value.shape[:-1], width)
    pattern = torch.nn.functional.scaled_dot_product_attention(
        query, key, unit, mask, is_causal=given.get("is_causal", False), scale=given.get("scale"), enable_gqa=grouped
    )
    values = freezer.linear(given["value"])
    if grouped and query.shape[-3] != value.shape[-3]:
        values = freezer.call(aten.repeat_interleave.self_int, values, query.shape[-3] // value.shape[-3], -3)
    return freezer.call(aten.matmul.default, freezer.hold(pattern), values)


def log_softmax(freezer: Freezer, node: fx.Node) -> fx.Node:
    """Z − log Σ exp z with the sum held."""
    x = node.args[0]
    return freezer.call(aten.sub.Tensor, x, freezer.hold(freezer.value(x) - freezer.value(node)))

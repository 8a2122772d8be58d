"""A norm freezes its scale; centring by the input's own mean stays linear; batch statistics are held, both of them."""

from typing import Any, cast

import torch
from torch import Tensor, fx

from unbraid.freeze._freezer import Freezer

aten = torch.ops.aten


def filled(node: fx.Node, *defaults: Any) -> list[Any]:
    """An operator's arguments, filled up from the defaults of all after the first."""
    given = list(node.args)
    return given + list(defaults[len(given) - 1 :])


def layer_norm(freezer: Freezer, node: fx.Node) -> fx.Node:
    """(x − mean x)·w/σ + b with σ held."""
    x, shape, weight, bias, eps = filled(node, None, None, None, 1e-5)[:5]
    dims = list(range(-len(shape), 0))
    scale = torch.rsqrt(freezer.value(x).var(dims, correction=0, keepdim=True) + eps)
    mean = freezer.call(aten.mean.dim, x, dims, True)
    return _scaled(freezer, node, freezer.call(aten.sub.Tensor, x, mean), scale, weight, bias)


def rms_norm(freezer: Freezer, node: fx.Node) -> fx.Node:
    """x·w/rms with rms held."""
    x, shape, weight, eps = filled(node, None, None, None)[:4]
    value = freezer.value(x)
    eps = torch.finfo(value.dtype).eps if eps is None else eps
    scale = torch.rsqrt(value.square().mean(list(range(-len(shape), 0)), keepdim=True) + eps)
    return _scaled(freezer, node, x, scale, weight, None)


def group_norm(freezer: Freezer, node: fx.Node) -> fx.Node:
    """(x − mean x)·w/σ + b over groups of channels, σ held."""
    _, groups, weight, bias, eps = filled(node, None, None, None, 1e-5)[:5]
    return _grouped(freezer, node, groups, weight, bias, eps)


def native_group_norm(freezer: Freezer, node: fx.Node) -> fx.Node:
    """The group norm that decomposition leaves, whose first result is the normed tensor."""
    weight, bias, _, _, _, groups, eps = node.args[1:]
    return _grouped(freezer, node, cast("int", groups), weight, bias, eps)


def instance_norm(freezer: Freezer, node: fx.Node) -> fx.Node:
    """A group norm of one channel per group; affine where it uses running statistics."""
    x, weight, bias, _, _, own, _, eps = node.args[:8]
    if not own:
        return freezer.call(node.target, *node.args)
    return _grouped(freezer, node, freezer.value(x).shape[1], weight, bias, eps)


def batch_norm(freezer: Freezer, node: fx.Node) -> fx.Node:
    """Affine in eval mode; in train mode the batch's mean and variance are held."""
    weight, bias, _, _, training, _, eps = node.args[1:8]
    if not training:
        return _constant_scale(freezer, node, node.target, *node.args)
    return _batch(freezer, node, weight, bias, eps)


def legit_batch_norm(freezer: Freezer, node: fx.Node) -> fx.Node:
    """The batch norms that decomposition leaves; their first result is the normed tensor."""
    x, weight, bias, *others = node.args
    name = str(node.target)
    if "no_training" not in name and others[-3]:
        return _batch(freezer, node, weight, bias, others[-1])
    mean, var = others[:2]
    momentum, eps = others[-2:]
    return _constant_scale(
        freezer, node, aten.batch_norm.default, x, weight, bias, mean, var, False, momentum, eps, False
    )


def _constant_scale(freezer: Freezer, node: fx.Node, target: Any, *args: Any) -> fx.Node:
    _refuse_data_beside(freezer, node)
    return freezer.call(target, *args)


def _refuse_data_beside(freezer: Freezer, node: fx.Node) -> None:
    if freezer.data(node) != [node.args[0]]:
        raise freezer.refusal(node, " where its weight or bias is computed from data")


def _grouped(freezer: Freezer, node: fx.Node, groups: int, weight: Any, bias: Any, eps: Any) -> fx.Node:
    x, value = node.args[0], freezer.value(node.args[0])
    grouped = value.reshape(len(value), groups, -1)
    scale = torch.rsqrt(grouped.var(-1, correction=0, keepdim=True) + eps)
    split = freezer.call(aten.reshape.default, x, list(grouped.shape))
    centred = freezer.call(aten.sub.Tensor, split, freezer.call(aten.mean.dim, split, [-1], True))
    scaled = freezer.call(aten.mul.Tensor, centred, freezer.hold(scale))
    whole = freezer.call(aten.reshape.default, scaled, list(value.shape))
    return _moved(freezer, node, whole, _column(freezer, weight, value), _column(freezer, bias, value))


def _batch(freezer: Freezer, node: fx.Node, weight: Any, bias: Any, eps: Any) -> fx.Node:
    x, value = node.args[0], freezer.value(node.args[0])
    dims = [d for d in range(value.ndim) if d != 1]
    scale = torch.rsqrt(value.var(dims, correction=0, keepdim=True) + eps)
    centred = freezer.call(aten.sub.Tensor, x, freezer.hold(value.mean(dims, keepdim=True)))
    return _scaled(freezer, node, centred, scale, _column(freezer, weight, value), _column(freezer, bias, value))


def _scaled(freezer: Freezer, node: fx.Node, x: Any, scale: Tensor, weight: Any, bias: Any) -> fx.Node:
    return _moved(freezer, node, freezer.call(aten.mul.Tensor, x, freezer.hold(scale)), weight, bias)


def _moved(freezer: Freezer, node: fx.Node, x: fx.Node, weight: Any, bias: Any) -> fx.Node:
    _refuse_data_beside(freezer, node)
    if weight is not None:
        x = freezer.call(aten.mul.Tensor, x, weight)
    return x if bias is None else freezer.call(aten.add.Tensor, x, bias)


def _column(freezer: Freezer, vector: Any, like: Tensor) -> Any:
    """A vector over channels, with the axes that let it multiply [batch, channels, ...]."""
    return None if vector is None else freezer.call(aten.reshape.default, vector, [-1] + [1] * (like.ndim - 2))

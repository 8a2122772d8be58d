"""Maxima and sorting keep what they chose: a gather, a mask."""

from typing import Any, cast

import torch
from torch import Tensor, fx

from unbraid.freeze._freezer import Freezer
from unbraid.freeze._norms import filled
from unbraid.graph.operators import Frozen, argument_of, operator_of
from unbraid.graph.questions import name_of

aten = torch.ops.aten


def result(freezer: Freezer, node: fx.Node) -> Any:
    """One of several results: those of a linear operator are linear, of others the rule writes all or the first."""
    parent, number = node.args
    assert isinstance(parent, fx.Node), "getitem takes one of several results"
    rule = operator_of(parent).freeze
    if rule in (None, Frozen.LINEAR):
        return freezer.call(node.target, *node.args)
    if rule.writes_all:
        return freezer.linear(parent)[number]
    return freezer.linear(parent) if number == 0 else freezer.hold(freezer.value(node))


def pooled(freezer: Freezer, node: fx.Node) -> fx.Node:
    """The choice of the maximum in each window is held."""
    x, name = node.args[0], name_of(node).removesuffix("_with_indices")
    value, rank = freezer.value(x), int(name[-2])
    if name.startswith("adaptive"):
        settings = [node.args[1]]
    else:
        window, stride, *others = filled(node, None, None, 0, 1, False)[1:]
        settings = [window, stride or None, *others]
    _, index = getattr(torch.nn.functional, name)(value, *settings, return_indices=True)
    flat = freezer.call(aten.flatten.using_ints, x, -rank, -1)
    chosen = freezer.call(aten.gather.default, flat, -1, freezer.hold(index.flatten(-rank)))
    return freezer.call(aten.reshape.default, chosen, list(index.shape))


def pooled_at_random(freezer: Freezer, node: fx.Node) -> fx.Node:
    """Fractional pooling: the indices came out."""
    index = freezer.value(node)[1]
    rank = int(name_of(node)[-2])
    flat = freezer.call(aten.flatten.using_ints, node.args[0], -rank, -1)
    chosen = freezer.call(aten.gather.default, flat, -1, freezer.hold(index.flatten(-rank)))
    return freezer.call(aten.reshape.default, chosen, list(index.shape))


def maximum_along(freezer: Freezer, node: fx.Node) -> fx.Node:
    """Amax and amin over any dimensions."""
    x, dims = filled(node, [])[:2]
    value = freezer.value(x)
    over = sorted({d % value.ndim for d in ([dims] if isinstance(dims, int) else dims)}) or list(range(value.ndim))
    kept = [d for d in range(value.ndim) if d not in over]
    last = value.permute(*kept, *over).flatten(len(kept))
    index = (last.argmax(-1) if name_of(node) == "amax" else last.argmin(-1))[..., None]
    moved = freezer.call(aten.permute.default, x, [*kept, *over])
    flat = freezer.call(aten.reshape.default, moved, list(last.shape))
    chosen = freezer.call(aten.gather.default, flat, -1, freezer.hold(index))
    return freezer.call(aten.reshape.default, chosen, list(freezer.value(node).shape))


def picked(freezer: Freezer, node: fx.Node) -> fx.Node:
    """Max, min, median, sort, top k: the values at the indices that came out."""
    x, out = node.args[0], freezer.value(node)
    value = freezer.value(x)
    if isinstance(out, Tensor):
        return _overall(freezer, node, value)
    dim = argument_of(node, {"dim"})
    assert isinstance(dim, int), "these work along one dimension"
    index = out[1]
    if index.ndim == value.ndim:
        return freezer.call(aten.gather.default, x, dim, freezer.hold(index))
    chosen = freezer.call(aten.gather.default, x, dim, freezer.hold(index.unsqueeze(dim)))
    return freezer.call(aten.squeeze.dim, chosen, dim)


def _overall(freezer: Freezer, node: fx.Node, value: Tensor) -> fx.Node:
    """The maximum, minimum or median of all elements, or max(a, b), the older name of maximum."""
    if "other" in str(node.target):
        return maximum(freezer, node)
    index = (value == freezer.value(node)).flatten().to(torch.uint8).argmax()
    flat = freezer.call(aten.reshape.default, node.args[0], [-1])
    return freezer.call(aten.select.int, flat, 0, int(index))


def maximum(freezer: Freezer, node: fx.Node) -> fx.Node:
    """Maximum and minimum of two tensors."""
    a, b = node.args
    larger = freezer.value(a) >= freezer.value(b)
    if name_of(node) in {"fmax", "fmin"}:  # these pass over nan
        larger = (larger & ~freezer.value(a).isnan()) | freezer.value(b).isnan()
    keep = larger if name_of(node) in {"max", "maximum", "fmax"} else ~larger
    return freezer.call(aten.where.self, freezer.hold(keep), a, b)


def copied(freezer: Freezer, node: fx.Node) -> fx.Node:
    """What functionalisation makes of t[...] = source: the source in the shape and type of t."""
    target, source = node.args[:2]
    value = freezer.value(target)
    return freezer.call(aten.expand.default, freezer.call(aten.to.dtype, source, value.dtype), list(value.shape))


def both_ends(freezer: Freezer, node: fx.Node) -> tuple[Any, Any]:
    """Smallest and largest at once keep their choices."""
    x, dim = node.args[0], cast("int | None", node.kwargs.get("dim"))
    value = freezer.value(x)

    def end(out: Tensor) -> fx.Node:
        if dim is None:
            place = int((value == out).flatten().to(torch.uint8).argmax())
            return freezer.call(aten.select.int, freezer.call(aten.reshape.default, x, [-1]), 0, place)
        kept = bool(node.kwargs.get("keepdim", False))
        index = (value == (out if kept else out.unsqueeze(dim))).to(torch.uint8).argmax(dim, keepdim=True)
        chosen = freezer.call(aten.gather.default, x, dim, freezer.hold(index))
        return chosen if kept else freezer.call(aten.squeeze.dim, chosen, dim)

    smallest, largest = freezer.value(node)
    return end(smallest), end(largest)

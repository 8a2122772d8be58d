"""Captured graphs written in other ways that compute the same: each rewrite changes every place that it fits.

- a + b: b + a, a − (−b), add(a, b/2, alpha=2), stack([a, b]).sum(0), 0 + a + b, a copy of a that is written in place
- (a + b) + c: a + (b + c), and the other way
- linear: matmul and addition, einsum, addmm
- mean: sum, divided
- expand: expand_as
"""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, fx

from unbraid.capture._functional import pure
from unbraid.capture._inlined import Flat
from unbraid.graph.questions import name_of

aten = torch.ops.aten

Rewrite = Callable[["Pen", fx.Node], bool]


class Pen:
    """Writes new nodes before one that stays: its value is that of the last of them."""

    def __init__(self, node: fx.Node) -> None:
        self.node = node

    def call(self, target, *args, **kwargs) -> fx.Node:
        with self.node.graph.inserting_before(self.node):
            new = self.node.graph.call_function(target, args, kwargs)
        new.meta = dict(self.node.meta)
        new.meta["val"] = target(*fx.map_arg(args, lambda n: n.meta["val"]), **kwargs)
        return new

    def become(self, target, *args, **kwargs) -> bool:
        self.node.target, self.node.args, self.node.kwargs = target, args, kwargs
        return True


def rewritten(graph: fx.Graph, rewrite: Rewrite) -> tuple[fx.Graph, int]:
    """A graph in another spelling, and at how many places it differs."""
    graph = copy.deepcopy(graph)
    nodes = [node for node in graph.nodes if node.op == "call_function" and isinstance(node.meta.get("val"), Tensor)]
    places = sum(rewrite(Pen(node), node) for node in nodes if node.meta["val"].is_floating_point())
    graph = pure(Flat(graph))
    graph.lint()
    return graph, places


def _added(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The operands of a plain sum of two tensors."""
    fits = name_of(node) == "add" and not node.kwargs and all(isinstance(a, fx.Node) for a in node.args)
    return node.args if fits and all(isinstance(a.meta["val"], Tensor) for a in node.args) else None


def _alike(*nodes: fx.Node) -> bool:
    return len({(str(n.meta["val"].shape), n.meta["val"].dtype) for n in nodes}) == 1


def commuted(pen: Pen, node: fx.Node) -> bool:
    operands = _added(node)
    return bool(operands) and pen.become(aten.add.Tensor, *reversed(operands))


def negated(pen: Pen, node: fx.Node) -> bool:
    operands = _added(node)
    return bool(operands) and pen.become(aten.sub.Tensor, operands[0], pen.call(aten.neg.default, operands[1]))


def with_alpha(pen: Pen, node: fx.Node) -> bool:
    operands = _added(node)
    if not operands:
        return False
    return pen.become(aten.add.Tensor, operands[0], pen.call(aten.mul.Tensor, operands[1], 0.5), alpha=2)


def stacked(pen: Pen, node: fx.Node) -> bool:
    operands = _added(node)
    if not operands or not _alike(node, *operands):
        return False
    return pen.become(aten.sum.dim_IntList, pen.call(aten.stack.default, list(operands), 1), [1])


def averaged(pen: Pen, node: fx.Node) -> bool:
    operands = _added(node)
    if not operands or not _alike(node, *operands):
        return False
    return pen.become(aten.mul.Tensor, pen.call(aten.mean.dim, pen.call(aten.stack.default, list(operands)), [0]), 2)


def from_zero(pen: Pen, node: fx.Node) -> bool:
    """What Python's sum() does."""
    operands = _added(node)
    return bool(operands) and pen.become(aten.add.Tensor, pen.call(aten.add.Tensor, operands[0], 0), operands[1])


def in_place(pen: Pen, node: fx.Node) -> bool:
    operands = _added(node)
    if not operands or not _alike(node, *operands):
        return False
    return pen.become(aten.add_.Tensor, pen.call(aten.clone.default, operands[0]), operands[1])


def to_the_right(pen: Pen, node: fx.Node) -> bool:
    """(a + b) + c as a + (b + c)."""
    operands = _added(node)
    inner = _added(operands[0]) if operands else None
    if not inner or len(operands[0].users) > 1:
        return False
    return pen.become(aten.add.Tensor, inner[0], pen.call(aten.add.Tensor, inner[1], operands[1]))


def to_the_left(pen: Pen, node: fx.Node) -> bool:
    """a + (b + c) as (a + b) + c."""
    operands = _added(node)
    inner = _added(operands[1]) if operands else None
    if not inner or len(operands[1].users) > 1:
        return False
    return pen.become(aten.add.Tensor, pen.call(aten.add.Tensor, operands[0], inner[0]), inner[1])


def _biased(pen: Pen, node: fx.Node, product: Callable[[fx.Node, fx.Node], tuple]) -> bool:
    """linear as a product and the addition of its bias."""
    if name_of(node) != "linear":
        return False
    x, weight, *bias = node.args
    target, *args = product(x, pen.call(aten.t.default, weight))
    if not bias or bias[0] is None:
        return pen.become(target, *args)
    return pen.become(aten.add.Tensor, pen.call(target, *args), bias[0])


def as_matmul(pen: Pen, node: fx.Node) -> bool:
    return _biased(pen, node, lambda x, weight: (aten.matmul.default, x, weight))


def as_einsum(pen: Pen, node: fx.Node) -> bool:
    return _biased(pen, node, lambda x, weight: (aten.einsum.default, "...i,io->...o", [x, weight]))


def as_addmm(pen: Pen, node: fx.Node) -> bool:
    if name_of(node) != "linear" or len(node.args) < 3 or node.meta["val"].ndim != 2:
        return False
    x, weight, bias = node.args
    return pen.become(aten.addmm.default, bias, x, pen.call(aten.t.default, weight))


def divided(pen: Pen, node: fx.Node) -> bool:
    """mean as a sum, divided."""
    if name_of(node) != "mean" or len(node.args) < 2:
        return False
    count = 1
    for dimension in node.args[1]:
        count *= node.args[0].meta["val"].shape[dimension]
    return isinstance(count, int) and pen.become(
        aten.div.Tensor, pen.call(aten.sum.dim_IntList, *node.args, **node.kwargs), count
    )


def expanded_as(pen: Pen, node: fx.Node) -> bool:
    """expand as expand_as another tensor of that size."""
    if name_of(node) != "expand":
        return False
    like = next((n for n in _before(node) if _alike(n, node) and n is not node.args[0]), None)
    return like is not None and pen.become(aten.expand_as.default, node.args[0], like)


def _before(node: fx.Node) -> Iterator[fx.Node]:
    while (node := node.prev).op != "root":
        if isinstance(node.meta.get("val"), Tensor):
            yield node


OF_SUMS = (commuted, negated, with_alpha, stacked, averaged, from_zero, in_place, to_the_right, to_the_left)
OF_MAPS = (as_matmul, as_einsum, as_addmm, divided, expanded_as)

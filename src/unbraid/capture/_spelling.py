"""One spelling for what can be written in several ways: a graph's operators replaced by others of the same value.

- subtract(a, b), multiply(a, b): sub(a, b), mul(a, b)
- add(a, b, alpha=2), addcmul(a, v, w): add(a, mul(b, 2)), add(a, mul(v, w))
- e.expand_as(x), broadcast_tensors(e, x)[0]: e.expand(sizes of x), for of x nothing else is read
- x.view(sizes): x.reshape(sizes). The exporter writes a reshape as the view that it is in its run; layouts differ where
  gradients are asked for, as attention has other kernels then
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import SymInt, Tensor, fx

from unbraid.capture._new_nodes import call, scaled
from unbraid.graph.questions import name_of

aten = torch.ops.aten

_ALIASES = {
    "subtract": aten.sub,
    "multiply": aten.mul,
    "divide": aten.div,
    "true_divide": aten.div,
    "negative": aten.neg,
    "concat": aten.cat,
    "concatenate": aten.cat,
}
_SIZED_AS = {"expand_as": aten.expand.default, "view_as": aten.reshape.default, "reshape_as": aten.reshape.default}
_SHAPED = frozenset({"view", "reshape", "_unsafe_view", "expand"})


def spell_out(graph: fx.Graph) -> None:
    """Write additions that hide a product as addition and product, and what has several names by one."""
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        name = name_of(node)
        if name == "broadcast_tensors":
            _expand_each(graph, node)
        elif name in _ALIASES:
            node.target = getattr(_ALIASES[name], node.target._overloadname, node.target)
        elif name in _SIZED_AS and isinstance(node.meta.get("val"), Tensor):
            _by_sizes(graph, node, _SIZED_AS[name])
        elif node.target is aten.view.default:
            node.target = aten.reshape.default
        elif name == "sym_size":
            _sized(node)
        elif name in {"add", "sub", "addcmul"} and isinstance(node.meta.get("val"), Tensor):
            _by_product(graph, node)


def _by_product(graph: fx.Graph, node: fx.Node) -> None:
    with graph.inserting_before(node):
        if name_of(node) == "addcmul":
            product: Any = call(graph, node, aten.mul.Tensor, node.args[1:3])
            first, second = (factor.meta["val"] for factor in product.args)
            product.meta["val"] = first * second  # which the sum may spread
            scale = node.kwargs.get("value", 1)
        else:
            product, scale = node.args[1], node.kwargs.get("alpha", 1)
        if scale != 1 and isinstance(product, fx.Node):
            product = scaled(graph, product, product, scale)
    if product is not node.args[1]:
        node.target = aten.sub.Tensor if name_of(node) == "sub" else aten.add.Tensor
        node.args, node.kwargs = (node.args[0], product), {}


def _by_sizes(graph: fx.Graph, node: fx.Node, target: Any) -> None:
    """Read the sizes of the other tensor, where they are not known, and nothing else of it."""
    tensor, other = node.args
    sizes: list[Any] = []
    with graph.inserting_before(node):
        for dimension, size in enumerate(node.meta["val"].shape):
            if isinstance(size, SymInt):
                read = graph.call_function(aten.sym_size.int, (other, dimension))
                read.meta = {**copy.copy(node.meta), "val": size}
                size = read
            sizes.append(size)
    node.target, node.args, node.kwargs = target, (tensor, sizes), {}


def _sized(node: fx.Node) -> None:
    """A size that was asked for by number is known: nothing has to be shaped for it."""
    shaped, dimension = node.args
    if not isinstance(shaped, fx.Node) or name_of(shaped) not in _SHAPED or not isinstance(dimension, int):
        return
    sizes: Any = shaped.args[1]
    size = sizes[dimension]
    if isinstance(size, fx.Node):
        node.replace_all_uses_with(size)


def _expand_each(graph: fx.Graph, broadcast: fx.Node) -> None:
    """Expand each tensor by itself: of the others it has the sizes alone."""
    tensors: Any = broadcast.args[0]
    for pick in list(broadcast.users):
        if name_of(pick) != "getitem":
            continue
        tensor, sizes = tensors[pick.args[1]], list[Any]()
        with graph.inserting_before(pick):
            for dimension, size in enumerate(pick.meta["val"].shape):
                sizes.append(_read_size(graph, pick, tensors, dimension) if isinstance(size, SymInt) else size)
        pick.target, pick.args = aten.expand.default, (tensor, sizes)


def _read_size(graph: fx.Graph, pick: fx.Node, tensors: Sequence[fx.Node], dimension: int) -> fx.Node:
    """The size of a dimension, read from the tensor that is not spread in it."""
    size, from_the_end = pick.meta["val"].shape[dimension], dimension - pick.meta["val"].ndim
    for tensor in tensors:
        shape = tensor.meta["val"].shape
        if len(shape) >= -from_the_end and str(shape[from_the_end]) == str(size):
            read = graph.call_function(aten.sym_size.int, (tensor, len(shape) + from_the_end))
            read.meta = {**pick.meta, "val": size}
            return read
    raise AssertionError("a size of what was broadcast is that of one of the tensors")

"""One spelling for what can be written in several ways: a graph's operators replaced by others of the same value.

- subtract(a, b), multiply(a, b): sub(a, b), mul(a, b)
- add(a, b, alpha=2), addcmul(a, v, w): add(a, mul(b, 2)), add(a, mul(v, w))
- e.expand_as(x), broadcast_tensors(e, x)[0]: e.expand(sizes of x), for of x nothing else is read
- addmm(h, a, b): add(h, mm(a, b)), where h carries data, and so on for each fused addition
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import SymInt, Tensor, fx

from unbraid.form._dataflow import Dataflow
from unbraid.graph import name_of

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
_SIZED_AS = {"expand_as": aten.expand.default, "view_as": aten.view.default, "reshape_as": aten.reshape.default}
_SHAPED = frozenset({"view", "reshape", "_unsafe_view", "expand"})
_PRODUCTS = {
    "addmm": aten.mm.default,
    "baddbmm": aten.bmm.default,
    "addmv": aten.mv.default,
    "addr": aten.outer.default,
    "addcmul": aten.mul.Tensor,
    "addcdiv": aten.div.Tensor,
}
_PLACED = frozenset({"index_add", "scatter_add"})


def spell_out(graph: fx.Graph) -> None:
    """Write additions that hide a product as addition and product, and what has several names by one."""
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        name = name_of(node)
        if name == "broadcast_tensors":
            _apart(graph, node)
        elif name in _ALIASES:
            node.target = getattr(_ALIASES[name], node.target._overloadname, node.target)
        elif name in _SIZED_AS and isinstance(node.meta.get("val"), Tensor):
            _by_sizes(graph, node, _SIZED_AS[name])
        elif name == "sym_size":
            _sized(node)
        elif name in {"add", "sub", "addcmul"} and isinstance(node.meta.get("val"), Tensor):
            _by_product(graph, node)


def unfuse(flow: Dataflow) -> bool:
    """Write fused additions to a tensor that carries data as addition and product; returns whether there were any."""
    fused = [node for node in flow.graph.nodes if _fused(flow, node)]
    for node in fused:
        with flow.graph.inserting_before(node):
            if name_of(node) not in _PRODUCTS:
                base, added = node.args[0], _placed(flow.graph, node)
            else:
                base = _scaled(flow.graph, node, node.args[0], node.kwargs.get("beta", 1))
                product = _call(flow.graph, node, _PRODUCTS[name_of(node)], node.args[1:3])
                added = _scaled(flow.graph, node, product, node.kwargs.get("alpha", node.kwargs.get("value", 1)))
        node.target, node.args, node.kwargs = aten.add.Tensor, (base, added), {}
    return bool(fused)


def _fused(flow: Dataflow, node: fx.Node) -> bool:
    """Whether data are added to data of the result's sizes."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    data = flow.data(node)
    fused = name_of(node) in (*_PRODUCTS, *_PLACED) or accumulates(node)
    if not fused or node.args[0] not in data or len(data) < 2:
        return False
    base: Any = node.args[0]
    same = base.meta["val"].shape == node.meta["val"].shape and base.meta["val"].dtype == node.meta["val"].dtype
    return bool(same)


def accumulates(node: fx.Node) -> bool:
    """Whether an index_put adds to what is there."""
    return name_of(node) in {"index_put", "_index_put_impl"} and len(node.args) > 3 and bool(node.args[3])


def _placed(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """What is added at some places, added to zeros."""
    zeros = _call(graph, node, aten.zeros_like.default, (node.args[0],))
    added = _call(graph, node, node.target, (zeros, *node.args[1:]))
    added.kwargs = dict(node.kwargs)
    return added


def _by_product(graph: fx.Graph, node: fx.Node) -> None:
    with graph.inserting_before(node):
        if name_of(node) == "addcmul":
            product: Any = _call(graph, node, aten.mul.Tensor, node.args[1:3])
            first, second = (factor.meta["val"] for factor in product.args)
            product.meta["val"] = first * second  # which the sum may spread
            scale = node.kwargs.get("value", 1)
        else:
            product, scale = node.args[1], node.kwargs.get("alpha", 1)
        if scale != 1 and isinstance(product, fx.Node):
            product = _scaled(graph, product, product, scale)
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


def _apart(graph: fx.Graph, broadcast: fx.Node) -> None:
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


def _scaled(graph: fx.Graph, like: fx.Node, tensor: Any, factor: Any) -> Any:
    return tensor if factor == 1 else _call(graph, like, aten.mul.Tensor, (tensor, factor))


def _call(graph: fx.Graph, like: fx.Node, target: Any, args: Sequence[Any]) -> fx.Node:
    node = graph.call_function(target, tuple(args))
    node.meta = copy.copy(like.meta)
    return node

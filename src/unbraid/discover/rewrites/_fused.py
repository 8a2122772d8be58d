"""Fused additions to a tensor that carries data, written as addition and product: addmm(h, a, b) is h + a @ b.

Where the first operand carries no data, it is a bias, and the operator stays as it is.
"""

from typing import Any

import torch
from torch import fx

from unbraid.capture import call, scaled
from unbraid.discover._dataflow import Dataflow
from unbraid.graph.operators import callee

aten = torch.ops.aten

_PRODUCTS = {
    aten.addmm: aten.mm.default,
    aten.baddbmm: aten.bmm.default,
    aten.addmv: aten.mv.default,
    aten.addr: aten.outer.default,
    aten.addcmul: aten.mul.Tensor,
    aten.addcdiv: aten.div.Tensor,
}
_PLACED = (aten.index_add, aten.scatter_add)


def unfuse(flow: Dataflow) -> bool:
    """Write fused additions to a tensor that carries data as addition and product; returns whether there were any."""
    fused = [node for node in flow.graph.nodes if _fused(flow, node)]
    for node in fused:
        with flow.graph.inserting_before(node):
            if callee(node) not in _PRODUCTS:
                base, added = node.args[0], _placed(flow.graph, node)
            else:
                base = scaled(flow.graph, node, node.args[0], node.kwargs.get("beta", 1))
                product = call(flow.graph, node, _PRODUCTS[callee(node)], node.args[1:3])
                added = scaled(flow.graph, node, product, node.kwargs.get("alpha", node.kwargs.get("value", 1)))
        node.target, node.args, node.kwargs = aten.add.Tensor, (base, added), {}
    return bool(fused)


def _fused(flow: Dataflow, node: fx.Node) -> bool:
    """Whether data are added to data of the result's sizes."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    data = flow.data(node)
    fused = callee(node) in (*_PRODUCTS, *_PLACED) or accumulates(node)
    if not fused or node.args[0] not in data or len(data) < 2:
        return False
    base: Any = node.args[0]
    same = base.meta["val"].shape == node.meta["val"].shape and base.meta["val"].dtype == node.meta["val"].dtype
    return bool(same)


def accumulates(node: fx.Node) -> bool:
    """Whether an index_put adds to what is there."""
    return callee(node) in (aten.index_put, aten._index_put_impl) and len(node.args) > 3 and bool(node.args[3])


def _placed(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """What is added at some places, added to zeros."""
    zeros = call(graph, node, aten.zeros_like.default, (node.args[0],))
    added = call(graph, node, node.target, (zeros, *node.args[1:]))
    added.kwargs = dict(node.kwargs)
    return added

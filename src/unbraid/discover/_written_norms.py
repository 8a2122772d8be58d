"""Norms that are written out: x / |x|, x · rsqrt(mean(x²) + ε), (x − mean(x)) / sqrt(var(x) + ε).

The factor is a length of the very tensor that it multiplies. So it is no gate, though it depends on the data and has
passed a root: q·cos + rotate(q)·sin stays what it is where q is a normed query.
"""

import torch
from torch import fx

from unbraid.discover._dataflow import Dataflow
from unbraid.graph.operators import callee
from unbraid.graph.questions import shape_only

aten = torch.ops.aten

_REDUCTIONS = frozenset(
    {aten.sum, aten.mean, aten.var, aten.std, aten.var_mean, aten.norm, aten.linalg_vector_norm, aten.linalg_norm}
)
_LENGTHS = _REDUCTIONS | {
    aten.abs,
    aten.add,
    aten.clamp,
    aten.clamp_min,
    aten.div,
    aten.maximum,
    aten.mul,
    aten.pow,
    aten.reciprocal,
    aten.rsqrt,
    aten.sqrt,
    aten.square,
    aten.sub,
}


def is_length(flow: Dataflow, factor: fx.Node, whole: fx.Node) -> bool:
    """Whether a factor is a length, or one over a length, of the tensor that it multiplies."""
    of, moved = {whole}, [whole]
    while moved:
        node = moved.pop()
        if shape_only(node) or (callee(node) is aten.sub and node.op == "call_function"):
            fresh = [read for read in flow.data(node) if read not in of]
            of.update(fresh)
            moved += fresh
    reduced, seen, stack = False, {factor}, [factor]
    while stack:
        node = stack.pop()
        if node in of:
            continue
        if node.op != "call_function" or not (shape_only(node) or callee(node) in _LENGTHS):
            return False
        if not flow.parametric.isdisjoint(node.all_input_nodes):
            return False
        reduced |= callee(node) in _REDUCTIONS
        fresh = [read for read in flow.data(node) if read not in seen]
        seen.update(fresh)
        stack += fresh
    return reduced and not of.isdisjoint(seen)

"""Concatenations: [S h, f(h)], a sum of tensors each of which is zero where the others lie.

A skip of a concatenation is shape-only, or a gate: beside one another, what a convolution and a pooling make of a
tensor are two readings of it, and no skip. Of operands that lie apart from each other, with another's between, no block
is made: the sum of its spans would be no tensor of the model.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import SymInt, Tensor, fx

from unbraid.discover._dataflow import Dataflow
from unbraid.discover.rewrites._graph_writer import Writer
from unbraid.graph.operators import callee

aten = torch.ops.aten
HALVES = "unbraid_halves"  # in a node's meta: the size, and the parts, of the concatenation from which it was read


def concatenated(node: fx.Node) -> tuple[list[fx.Node], int]:
    """The tensors that a node concatenates, and along which dimension, counted from the last."""
    tensors: Any = node.args[0]
    given: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    rank = node.meta["val"].ndim
    return list(tensors), given % rank - rank


def is_concatenation(node: fx.Node) -> bool:
    """Whether a node concatenates tensors, each read once, of sizes that are known along that dimension."""
    if node.op != "call_function" or callee(node) is not aten.cat or not isinstance(node.args[0], list | tuple):
        return False
    if not all(isinstance(tensor, fx.Node) for tensor in node.args[0]) or not isinstance(node.meta.get("val"), Tensor):
        return False
    tensors, along = concatenated(node)
    ranks = {tensor.meta["val"].ndim for tensor in tensors}
    return (
        len(set(tensors)) == len(tensors) > 1
        and ranks == {node.meta["val"].ndim}
        and all(known_size(tensor.meta["val"].shape[along]) is not None for tensor in tensors)
    )


def halves_beside(node: fx.Node, whole: fx.Node) -> list[fx.Node]:
    """The tensors that were one with a node, of the size of a concatenation into which it is put once more."""
    size, tensors = node.meta.get(HALVES, (None, ()))
    _, along = concatenated(whole)
    return [tensor for tensor in tensors if tensor is not node] if size == whole.meta["val"].shape[along] else []


def known_size(size: int | SymInt) -> int | None:
    """A size as a number; None where it is free."""
    return size if isinstance(size, int) else size.node.maybe_as_int()


def places(node: fx.Node) -> tuple[int, dict[fx.Node, tuple[int, int]]]:
    """Along which dimension, from the last, a node concatenates tensors, and where each lies: (start, length)."""
    tensors, along = concatenated(node)
    spans = spans_of([tensor.meta["val"].shape[along] for tensor in tensors])
    assert spans, "a concatenation of free sizes is no block"
    return along, dict(zip(tensors, spans, strict=True))


def bounds(node: fx.Node, size: int) -> tuple[int, int] | None:
    """What of a dimension of this size a write into a slice covers; None where it is not known."""
    start, end, step = [*node.args[3:], *[None] * 3][:3]
    known = [known_size(one.meta["val"]) if isinstance(one, fx.Node) else one for one in (start, end)]
    given = [isinstance(one, fx.Node) for one in (start, end)]
    if step not in (None, 1) or any(was and one is None for was, one in zip(given, known, strict=True)):
        return None
    first, last, _ = slice(*known).indices(size)
    return first, last


def spans_of(sizes: Sequence[Any]) -> list[tuple[int, int]]:
    """Where tensors of these sizes lie, side by side; nothing where a size is free."""
    spans, start = list[tuple[int, int]](), 0
    for size in sizes:
        length = known_size(size)
        if length is None:
            return []
        spans.append((start, length))
        start += length
    return spans


def adjacent(tensors: Sequence[fx.Node], chosen: Sequence[fx.Node]) -> bool:
    """Whether the chosen ones lie side by side among some tensors."""
    places = sorted(tensors.index(node) for node in chosen)
    return places[-1] - places[0] == len(places) - 1


def as_one(flow: Dataflow, node: fx.Node, chosen: Sequence[fx.Node]) -> fx.Node:
    """The node that concatenates the chosen operands of a concatenation: itself, or a new one that it reads."""
    tensors, along = concatenated(node)
    inner = [tensor for tensor in tensors if tensor in chosen]
    if len(inner) == len(tensors):
        return node
    dimension = along % node.meta["val"].ndim
    total = Writer(flow, node).call(aten.cat.default, (inner, dimension), like=node)
    total.meta["val"] = torch.cat([tensor.meta["val"] for tensor in inner], dimension)
    first = tensors.index(inner[0])
    rest = [tensor for tensor in tensors if tensor not in chosen]
    node.args, node.kwargs = ([*rest[:first], total, *rest[first:]], dimension), {}
    return total

"""Where an attention branch can be parted into heads: found in the data flow of its segment."""

import operator
from dataclasses import dataclass

import torch
from torch import fx

from unbraid.graph import Graph, Segment
from unbraid.graph.operators import Attention, Holds, callee, operator_of
from unbraid.graph.questions import affine, is_float, name_of, shape_only

aten = torch.ops.aten
_MERGES = (aten.view, aten.reshape, aten._unsafe_view, aten.flatten, aten._reshape_alias)
# What happens to a pattern before its product with the values.
_WEAKENS = (aten.dropout, aten.masked_fill, aten.mul, aten.div)
_BY_A_WEIGHT = (aten.addmm, aten.matmul, aten.mm)


@dataclass(frozen=True)
class Heads:
    """Where a branch's segment can be parted.

    Attributes:
        merged: the node [..., heads, width] before the heads are merged.
        end: the nodes from the merge to the segment's result, in order.
        count: the number of heads.
        shifted: whether the end adds a constant.
    """

    merged: fx.Node
    end: tuple[fx.Node, ...]
    count: int
    shifted: bool


def heads_of(graph: Graph, segment: Segment, readers: int, holds: bool) -> Heads | str:
    """Where to part a branch's segment; else the reason why not."""
    if holds or readers != 1 or len(segment.outputs) != 1 or not isinstance(segment.code, fx.GraphModule):
        return "its result, or a block inside it, is used by itself"
    carrying = _carrying(graph, segment, segment.code.graph)
    (result,) = (n for n in segment.code.graph.nodes if n.op == "output")
    node = result.args[0]
    end: list[fx.Node] = []
    while isinstance(node, fx.Node) and node in carrying and node.op == "call_function":
        merged = _merged(node, carrying)
        if merged is not None:
            chosen = (node, *reversed(end))
            return Heads(merged, chosen, int(merged.meta["val"].shape[-2]), any(map(_shifts, chosen)))
        data = [argument for argument in node.all_input_nodes if argument in carrying]
        if not _affine(node, data):
            return f"{name_of(node)} comes after, which is not affine, or no attention"
        end.append(node)
        node = data[0]
    return "there is no attention product in it"


def _carrying(graph: Graph, segment: Segment, code: fx.Graph) -> set[fx.Node]:
    placeholders = [node for node in code.nodes if node.op == "placeholder"]
    carrying = {node for node, carries in zip(placeholders, graph.data(segment), strict=False) if carries}
    for node in code.nodes:
        if node.op == "call_function" and is_float(node) and not carrying.isdisjoint(node.all_input_nodes):
            carrying.add(node)
    return carrying


def _merged(node: fx.Node, carrying: set[fx.Node]) -> fx.Node | None:
    """The tensor [..., heads, width] that a node merges to [..., heads·width] after attention."""
    before = node.args[0] if node.args else None
    if callee(node) not in _MERGES or not isinstance(before, fx.Node):
        return None
    wide, narrow = (n.meta["val"].shape for n in (before, node))
    if len(wide) < 4 or not isinstance(wide[-2], int) or wide[-2] < 2:
        return None
    if len(narrow) < 2 or narrow[-1] != wide[-2] * wide[-1] or not _attends(before, carrying):
        return None
    return before


def _attends(node: fx.Node, carrying: set[fx.Node]) -> bool:
    """Whether a tensor is the product of an attention pattern and the values, moved but not mixed since."""
    while shape_only(node) or callee(node) is operator.getitem:
        above = [argument for argument in node.all_input_nodes if argument in carrying]
        if not above:
            return False
        node = above[0]
    role = operator_of(node).attention
    if role is Attention.WHOLE:
        return True
    return role is Attention.PRODUCT and any(_normalised(n) for n in node.all_input_nodes)


def _normalised(node: fx.Node) -> bool:
    """Whether a factor is a softmax, moved, masked or dropped since."""
    while node.op == "call_function" and operator_of(node).attention is not Attention.PATTERN:
        if not (shape_only(node) or callee(node) in _WEAKENS):
            return False
        node = node.all_input_nodes[0]
    return node.op == "call_function"


def _affine(node: fx.Node, data: list[fx.Node]) -> bool:
    """Affine and no maximum; a product with a weight too."""
    row = operator_of(node)
    if len(data) != 1 or row.holds is Holds.CHOICE:
        return False
    if callee(node) in _BY_A_WEIGHT:
        return node.args[row.factors] is data[0]
    return affine(node, data, held=False)


def _shifts(node: fx.Node) -> bool:
    """Whether an affine node adds a constant."""
    place = operator_of(node).shifts
    return place is not None and len(node.args) > place and node.args[place] is not None

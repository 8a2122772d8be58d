"""Where an attention branch can be parted into heads: found in the data flow of its segment."""

from dataclasses import dataclass

from torch import fx

from unbraid.graph import Graph, Segment, affine, is_float, name_of, shape_only

_MERGES = frozenset({"view", "reshape", "_unsafe_view", "flatten", "_reshape_alias"})
_PRODUCTS = frozenset({"matmul", "bmm", "einsum"})


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
    if name_of(node) not in _MERGES or not isinstance(before, fx.Node):
        return None
    wide, narrow = (n.meta["val"].shape for n in (before, node))
    if len(wide) < 4 or not isinstance(wide[-2], int) or wide[-2] < 2:
        return None
    if len(narrow) < 2 or narrow[-1] != wide[-2] * wide[-1] or not _attends(before, carrying):
        return None
    return before


def _attends(node: fx.Node, carrying: set[fx.Node]) -> bool:
    """Whether a tensor is the product of an attention pattern and the values, moved but not mixed since."""
    while shape_only(node) or name_of(node) == "getitem":
        above = [argument for argument in node.all_input_nodes if argument in carrying]
        if not above:
            return False
        node = above[0]
    if "scaled_dot_product" in name_of(node):
        return True
    return name_of(node) in _PRODUCTS and any(_normalised(n) for n in node.all_input_nodes)


def _normalised(node: fx.Node) -> bool:
    """Whether a factor is a softmax, moved, masked or dropped since."""
    while node.op == "call_function" and "softmax" not in name_of(node):
        if not (shape_only(node) or name_of(node) in {"dropout", "masked_fill", "mul", "div"}):
            return False
        node = node.all_input_nodes[0]
    return node.op == "call_function"


def _affine(node: fx.Node, data: list[fx.Node]) -> bool:
    """Affine and no maximum; a product with a weight too."""
    if len(data) != 1 or "max" in name_of(node):
        return False
    if name_of(node) in {"addmm", "matmul", "mm"}:
        place = 1 if name_of(node) == "addmm" else 0
        return node.args[place] is data[0]
    return affine(node, data, held=False)


def _shifts(node: fx.Node) -> bool:
    """Whether an affine node adds a constant."""
    if name_of(node) == "linear" or "conv" in name_of(node):
        return len(node.args) > 2 and node.args[2] is not None
    return name_of(node) in {"addmm", "add", "sub", "masked_fill", "slice_scatter"} or "norm" in name_of(node)

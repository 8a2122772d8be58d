from collections.abc import Collection
from functools import cached_property

import torch
from torch import SymInt, Tensor, fx

from unbraid.graph import is_float, mixing, name_of


class Dataflow:
    """Which nodes of a graph carry data, and how they hang together.

    Data are the floating-point tensors that are computed from a floating-point input or an embedding look-up. Integer
    masks and positions carry none, and neither do parameters.

    Attributes:
        graph: the graph.
        state: the placeholders that stand for parameters, buffers and constants.
        learned: those of them that are parameters.
        order: the place of each node in the order of execution.
        sources: the nodes at which data begin.
        carries: the nodes that data reach.
    """

    def __init__(self, graph: fx.Graph, state: Collection[str], learned: Collection[str]) -> None:
        self.graph = graph
        self.state = state
        self.learned = learned
        self.order = {node: number for number, node in enumerate(graph.nodes)}
        self.sources = [node for node in graph.nodes if self._begins(node)]
        self.carries = self._reached(self.sources)

    def _begins(self, node: fx.Node) -> bool:
        if node.op == "placeholder":
            return node.name not in self.state and is_float(node)
        return name_of(node) in {"embedding", "embedding_bag"} and self._given(node.args[1])

    def _given(self, index: object) -> bool:
        """Whether an index holds the caller's own integers, moved or hashed: positions counted from them are not."""
        seen, stack = set[fx.Node](), [index]
        while stack:
            node = stack.pop()
            if not isinstance(node, fx.Node) or node in seen or _yes_or_no(node):
                continue
            seen.add(node)
            if node.op == "placeholder" and node.name not in self.state:
                return True
            if node.op == "call_function" and not mixing(node) and not name_of(node).endswith("_like"):
                stack.extend(node.all_input_nodes)
        return False

    def _reached(self, sources: list[fx.Node]) -> set[fx.Node]:
        reached = set(sources)
        for node in self.graph.nodes:
            if not reached.isdisjoint(node.all_input_nodes) and is_float(node):
                reached.add(node)
        return reached

    @cached_property
    def parametric(self) -> set[fx.Node]:
        """The nodes computed from parameters alone."""
        found: set[fx.Node] = set()
        for node in self.graph.nodes:
            if node.op == "placeholder":
                if node.name in self.learned:
                    found.add(node)
            elif node not in self.carries and is_float(node) and not found.isdisjoint(node.all_input_nodes):
                found.add(node)
        return found

    def data(self, node: fx.Node) -> list[fx.Node]:
        """The inputs of a node that carry data."""
        return [argument for argument in node.all_input_nodes if argument in self.carries]

    def above(self, node: fx.Node, floor: fx.Node) -> set[fx.Node]:
        """What a node is computed from, itself included, no earlier than `floor` in the order of execution.

        The bound keeps the search local: it costs the size of a block, not of the model.
        """
        lowest, found, stack = self.order[floor], {node}, [node]
        while stack:
            for argument in stack.pop().all_input_nodes:
                if argument not in found and self.order[argument] >= lowest:
                    found.add(argument)
                    stack.append(argument)
        return found

    def region(self, fork: fx.Node, end: fx.Node) -> list[fx.Node]:
        """The nodes on the ways from a fork (exclusive) to an end (inclusive), in order of execution."""
        above = sorted(self.above(end, fork), key=self.order.__getitem__)
        reached = {fork}
        for node in above:
            if not reached.isdisjoint(node.all_input_nodes):
                reached.add(node)
        return [node for node in above if node in reached and node is not fork] if fork in above else []


def _yes_or_no(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return not isinstance(value, Tensor) or value.dtype is torch.bool


def same_shape(a: fx.Node, b: fx.Node) -> bool:
    """Whether two nodes hold tensors of equal shape at the traced input.

    Free sizes are compared by their values there: a strided slice and a strided convolution write one size in two ways.
    """
    x, y = a.meta.get("val"), b.meta.get("val")
    return isinstance(x, Tensor) and isinstance(y, Tensor) and [*map(_hint, x.shape)] == [*map(_hint, y.shape)]


def _hint(size: int | SymInt) -> int | str:
    if isinstance(size, int):
        return size
    return int(size.node.hint) if size.node.has_hint() else str(size)

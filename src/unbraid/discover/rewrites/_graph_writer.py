"""New nodes in a captured graph, with their place in its data flow."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from unbraid.discover._dataflow import Dataflow
from unbraid.discover._summands import Operand
from unbraid.graph.questions import values_read

aten = torch.ops.aten


class Writer:
    """Writes sums before a node of a graph: every number that they hold changes by rounding alone.

    Args:
        flow: the data flow of the graph, which is kept up to date.
        before: the node before which new ones are put.
    """

    def __init__(self, flow: Dataflow, before: fx.Node) -> None:
        self.flow = flow
        self.before = before

    def multiple(self, node: fx.Node, factor: float) -> fx.Node:
        """factor·node."""
        if math.isclose(factor, 1):
            return node
        if math.isclose(factor, -1):
            return self.call(aten.neg.default, (node,), like=node)
        return self.call(aten.mul.Tensor, (node, factor), like=node)

    def sum(self, operands: Sequence[Operand], *, at: fx.Node | None = None) -> fx.Node:
        """The sum of a tensor and further operands, in this order; it takes the place of the node `at`, if given."""
        total, *others = operands
        assert isinstance(total, fx.Node), "a sum begins with a tensor"
        for place, operand in enumerate(others):
            last = place == len(others) - 1
            args = (total, operand)
            if at is not None and last:
                return _become(at, aten.add.Tensor, args)
            total = self.call(aten.add.Tensor, args, like=self.before)
        return total

    def scale(self, node: Operand, factor: float) -> None:
        """Let the node before which new ones are put hold factor·node."""
        _become(self.before, aten.mul.Tensor, (node, factor))

    def call(self, target: Any, args: tuple[Any, ...], *, like: fx.Node) -> fx.Node:
        """An operator whose result has the sizes and the type of another node."""
        with self.flow.graph.inserting_before(self.before):
            node = self.flow.graph.call_function(target, args)
        node.meta = copy.copy(like.meta)
        self._place(node)
        if not self.flow.carries.isdisjoint(values_read(node)):
            self.flow.carries.add(node)
        return node

    def _place(self, node: fx.Node) -> None:
        order = self.flow.order
        before, after = order.get(node.prev, -1), order[node.next]
        order[node] = (before + after) / 2
        if after - before < 1e-6:
            order.update({other: number for number, other in enumerate(self.flow.graph.nodes)})


def _become(node: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
    node.target, node.args, node.kwargs = target, args, {}
    return node

"""What data reach, and in which way.

Data are the numbers that a model computes with: they begin at its *sources*, the floating-point inputs and the
embeddings that the caller's own ids look up. Two things travel from there, and not equally far.

*Values* travel wherever elements depend on data, and blocks are looked for, and paths counted, as far as they do:

- through floating-point operators;
- through a *choice*, an index, a mask or a number that was computed from data: `table[scores.argmax()]`, a one-hot
  route of experts, `image.byte()` on its way to a decoder. A floating-point tensor that reads a choice alone carries
  data;
- not through sizes. `zeros_like(x)`, `e.expand_as(x)` and `x.shape[0]` ask x for none of its elements.

*Gradients* end in integers and booleans, at `detach` and in regions without gradients, and are zero there as in the
model's own autograd. Beside floating-point data a choice is held, like a weight: it is no operand that carries data
(`Dataflow.data`), so that a gather, a sort or a mask by it stays a linear map of what it picks from. Whole numbers that
were rounded from data and cast back are an activation, whose value the frozen form splits as any other's.

Integers of the caller's own carry no data, and neither do masks and positions counted from them, however many
operators make them: two embeddings that ids and positions look up are a sum of embeddings, not a stream and a branch.
"""

from collections.abc import Collection, Mapping
from functools import cached_property

import torch
from torch import SymInt, Tensor, fx

from unbraid.graph.operators import callee
from unbraid.graph.questions import is_float, mixing, shape_only, values_read

_LOOKUPS = (torch.ops.aten.embedding, torch.ops.aten.embedding_bag)


class Dataflow:
    """Which nodes of a graph carry data, and how they hang together.

    Attributes:
        graph: the graph.
        state: the placeholders that stand for parameters, buffers and constants, with the model's names of these.
        learned: those of them that are parameters.
        order: the place of each node in the order of execution.
        sources: the nodes at which data begin.
        reached: the nodes that data reach, indices, masks and numbers that were computed from data included.
        carries: the floating-point nodes among them.
    """

    def __init__(self, graph: fx.Graph, state: Mapping[str, str], learned: Collection[str]) -> None:
        self.graph = graph
        self.state = state
        self.learned = learned
        self.order: dict[fx.Node, float] = {node: number for number, node in enumerate(graph.nodes)}
        self.sources, self.reached = self._flowing()
        self.carries = {node for node in self.reached if is_float(node)}

    def _flowing(self) -> tuple[list[fx.Node], set[fx.Node]]:
        """Where data begin, and what they reach from there; an index can only be chosen by what comes before it."""
        sources, reached = list[fx.Node](), set[fx.Node]()
        for node in self.graph.nodes:
            if self._begins(node, reached):
                sources.append(node)
                reached.add(node)
            elif node.op == "call_function" and not reached.isdisjoint(values_read(node)):
                reached.add(node)
        return sources, reached

    def _begins(self, node: fx.Node, reached: set[fx.Node]) -> bool:
        if node.op == "placeholder":
            return node.name not in self.state and is_float(node)
        return callee(node) in _LOOKUPS and self._given(node.args[1], reached)

    def _given(self, index: object, reached: set[fx.Node]) -> bool:
        """Whether an index holds the caller's own numbers, moved or hashed: positions counted from them are not.

        Where the model has computed any part of it from data, the index is chosen, and what it looks up begins nothing.
        """
        given, seen = False, set[tuple[object, bool]]()
        stack = [(index, True)]  # a mask moves the caller's numbers; that it holds some itself gives none
        while stack:
            node, gives = stack.pop()
            if not isinstance(node, fx.Node) or (node, gives) in seen:
                continue
            seen.add((node, gives))
            read, gives = values_read(node), gives and not _yes_or_no(node)
            # A sum of several tensors, x + f(x) say, is the model's own, like what mixes.
            computed = mixing(node) or (is_float(node) and sum(map(is_float, read)) > 1)
            if node.op == "placeholder":
                given |= gives and node.name not in self.state
            elif not computed:
                stack.extend((argument, gives) for argument in read)
            elif node in reached:
                return False
        return given

    @cached_property
    def parametric(self) -> set[fx.Node]:
        """The nodes computed from parameters alone."""
        computed: set[fx.Node] = set()
        for node in self.graph.nodes:
            if node.op == "placeholder":
                if node.name in self.learned:
                    computed.add(node)
            elif node not in self.carries and is_float(node) and not computed.isdisjoint(node.all_input_nodes):
                computed.add(node)
        return computed

    def weighs(self, node: fx.Node) -> bool:
        """Whether a node mixes by a matrix of parameters."""
        weights = [read.meta["val"] for read in node.all_input_nodes if read in self.parametric]
        return mixing(node) and any(isinstance(weight, Tensor) and weight.ndim > 1 for weight in weights)

    def data(self, node: fx.Node) -> list[fx.Node]:
        """The inputs of a node that carry data; choices are held, and none of them."""
        return [argument for argument in values_read(node) if argument in self.carries]

    def moved(self, node: fx.Node) -> fx.Node:
        """The tensor whose elements a node moves; itself where it moves none."""
        while shape_only(node) and len(data := self.data(node)) == 1:
            node = data[0]
        return node

    def above(self, node: fx.Node, floor: fx.Node) -> set[fx.Node]:
        """What a node is computed from, itself included, no earlier than `floor` in the order of execution.

        The bound keeps the search local: it costs the size of a block, not of the model.
        """
        lowest, upstream, stack = self.order[floor], {node}, [node]
        while stack:
            for argument in values_read(stack.pop()):
                if argument not in upstream and self.order[argument] >= lowest:
                    upstream.add(argument)
                    stack.append(argument)
        return upstream

    def region(self, fork: fx.Node, end: fx.Node) -> list[fx.Node]:
        """The nodes on the ways from a fork (exclusive) to an end (inclusive), in order of execution."""
        above = sorted(self.above(end, fork), key=self.order.__getitem__)
        reached = {fork}
        for node in above:
            if not reached.isdisjoint(values_read(node)):
                reached.add(node)
        return [node for node in above if node in reached and node is not fork] if fork in above else []


def _yes_or_no(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return not isinstance(value, Tensor) or value.dtype is torch.bool


def same_shape(a: fx.Node, b: fx.Node) -> bool:
    """Whether two nodes hold tensors of equal shape at the traced input.

    Free sizes are compared by their values there: a strided slice and a strided convolution write one size in two ways.
    A size that data decide, as a boolean mask or `nonzero` does, has no value before the model runs; as the model adds
    the two, it is equal to what it meets.
    """
    x, y = a.meta.get("val"), b.meta.get("val")
    if not isinstance(x, Tensor) or not isinstance(y, Tensor) or x.ndim != y.ndim:
        return False
    pairs = zip(map(_hint, x.shape), map(_hint, y.shape), strict=True)
    return all(one is None or other is None or one == other for one, other in pairs)


def _hint(size: int | SymInt) -> int | None:
    if isinstance(size, int):
        return size
    return int(size.node.hint) if size.node.has_hint() else None

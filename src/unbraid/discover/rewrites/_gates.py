"""Gates: x + t·(f − x) is (1 − t)·x + t·f, in whatever spelling.

Before sums are flattened, a product of a sum is written as a sum of products where the sum around it adds one of the
same operands: then all that carries the fork is collected into one coefficient S, here 1 − t. `lerp` is its formula.

Behind a skip gates are *held*: what passes a gate has passed a learned function, which is no skip. So the skip is
written with its gates detached, and the derivative that this leaves out is added to the first branch, as a number that
is zero and has the gate's derivative:

    S(g)·h + f(h)   =   S(ḡ)·h + [f(h) + S(g)·h̄ − S̄(ḡ)·h̄]        a bar stands for detached

Values stay as they are, the gradient stays that of the model, and the frozen form holds the gates as it holds whatever
is detached.

A concatenation with a gate, [t·h, f(h)], is written as the sum that it is, as the derivative lies where the skip does:

    [t̄·h, 0] + [t·h̄ − t̄·h̄, f(h)]
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg

from unbraid.discover._block_nodes import BlockNodes
from unbraid.discover._dataflow import Dataflow, same_shape
from unbraid.discover._flattened_sums import read_once
from unbraid.discover._routes import PRODUCTS
from unbraid.discover._summands import summands
from unbraid.discover.rewrites._concatenations import places
from unbraid.discover.rewrites._graph_writer import Writer
from unbraid.graph.operators import callee
from unbraid.graph.questions import HELD, Carrier, carrier, is_float, shape_only, values_read

aten = torch.ops.aten


def distribute(flow: Dataflow) -> bool:
    """Write lerp as its formula, and products of sums as sums of products where one sum adds what both do.

    Returns:
        Whether there were any.
    """
    written = False
    for node in list(flow.graph.nodes):
        if node.op != "call_function":
            continue
        if callee(node) is aten.einsum and _element_by_element(node):
            node.target, node.args = aten.mul.Tensor, tuple(_listed(node))
        if callee(node) is aten.lerp and isinstance(node.args[2], fx.Node) and node in flow.carries:
            _unfuse_lerp(flow, node)
            written = True
        for operand, _ in summands(node) if node in flow.carries else ():
            if isinstance(operand, fx.Node) and _multiplied_out(flow, node, operand):
                written = True
    return written


def _element_by_element(node: fx.Node) -> bool:
    """Whether an einsum multiplies two tensors of one size, element by element."""
    equation: Any = node.args[0]
    inputs, _, output = equation.replace(" ", "").replace("...", "").partition("->")
    letters = inputs.split(",")
    return len(letters) == 2 and letters[0] == letters[1] == output and len(set(output)) == len(output)


def _listed(node: fx.Node) -> list[fx.Node]:
    tensors: Any = node.args[1]
    return list(tensors)


def _unfuse_lerp(flow: Dataflow, node: fx.Node) -> None:
    """(1 − w)·a + w·b."""
    a, b, weight = node.args
    writer = Writer(flow, node)
    rest = writer.call(aten.rsub.Scalar, (weight, 1), like=_tensor(weight))
    parts = [writer.call(aten.mul.Tensor, (rest, a), like=node), writer.call(aten.mul.Tensor, (weight, b), like=node)]
    writer.sum(parts, at=node)


def _multiplied_out(flow: Dataflow, node: fx.Node, product: fx.Node) -> bool:
    """Multiply out a product that a sum adds, if it is of a sum that adds what the outer one adds, too."""
    if callee(product) is not aten.mul or not read_once(product) or len(product.args) != 2:
        return False
    others = {operand for operand, _ in summands(node) if operand is not product}
    first, second = product.args
    for total, factor in ((first, second), (second, first)):
        inner = summands(total) if isinstance(total, fx.Node) else []
        tensors = [operand for operand, _ in inner if isinstance(operand, fx.Node)]
        # What is learned alone is no gate: x + s·(pool(x) − x) stays a branch that is scaled.
        if len(tensors) < 2 or not isinstance(factor, fx.Node) or not isinstance(total, fx.Node):
            continue
        if factor not in flow.carries or others.isdisjoint(tensors):
            continue
        if not read_once(total) or not all(same_shape(tensor, product) for tensor in tensors):
            continue
        writer = Writer(flow, product)
        parts: list[Any] = []
        for operand, times in inner:
            if isinstance(operand, fx.Node):
                part = writer.call(aten.mul.Tensor, (operand, factor), like=product)
                parts.append(writer.multiple(part, times))
            else:
                parts.append(writer.multiple(factor, operand * times))
        writer.sum(parts, at=product)
        return True
    return False


def hold_gates(flow: Dataflow, block: BlockNodes) -> BlockNodes:
    """The block with its skip's gates held, and their derivative in its first branch."""
    assert block.skip is not None, "a block with a gate has a skip"
    carried = _carried(flow, block.fork, block.skip)
    writer = Writer(flow, block.add)
    skip = _Copy(flow, writer, carried, block.fork, hold_fork=False).of(block.skip)
    moving = _Copy(flow, writer, carried, block.fork, hold_fork=True).of(block.skip)
    still = writer.call(aten.detach.default, (moving,), like=moving)
    tangent = writer.call(aten.sub.Tensor, (moving, still), like=block.skip)
    tangent.meta[HELD] = "derivative"
    branches = [*block.branches]
    if callee(block.add) is aten.cat:
        skip, tangent, *branches = _among_zeros(writer, block, [skip, tangent, *branches])
    first = writer.call(aten.add.Tensor, (branches[0], tangent), like=block.add)
    held = replace(block, skip=skip, branches=(first, *branches[1:]))
    if callee(block.add) is aten.add and set(block.add.all_input_nodes) == {block.skip, block.branches[0]}:
        block.add.args = map_arg(block.add.args, lambda read: skip if read is block.skip else first)  # in its own order
    else:
        writer.sum([skip, *held.branches], at=block.add)
    return held


def _among_zeros(writer: Writer, block: BlockNodes, parts: Sequence[fx.Node]) -> list[fx.Node]:
    """What lies in the place of the skip, twice, and of each branch of a concatenation, among zeros."""
    padded, (along, spans) = list[fx.Node](), places(block.add)
    for operand, part in zip((block.skip, block.skip, *block.branches), parts, strict=True):
        assert operand is not None, "a block with a gate has a skip"
        start, length = spans[operand]
        total = sum(length for _, length in spans.values())
        widths = [0, 0] * (-1 - along) + [start, total - start - length]
        whole = writer.call(aten.constant_pad_nd.default, (part, widths), like=part)
        sizes = [*part.meta["val"].shape]  # padding what has a free size would fix it
        sizes[along] = total
        whole.meta["val"] = part.meta["val"].new_empty(sizes)
        padded.append(whole)
    return padded


def _carried(flow: Dataflow, fork: fx.Node, skip: fx.Node) -> set[fx.Node]:
    """The nodes between a fork and a skip on the ways that carry it: sums, scaled, gated and mixed copies."""
    carrying = {fork}
    for node in flow.region(fork, skip):
        if _carries(flow, node) and not carrying.isdisjoint(flow.data(node)):
            carrying.add(node)
    return carrying


def _carries(flow: Dataflow, node: fx.Node) -> bool:
    if shape_only(node) or len(summands(node)) > 1 or callee(node) in (*PRODUCTS, aten.sum):
        return True
    data = flow.data(node)
    passed = carrier(node, data) if len(data) == 1 else None
    return passed is not None and passed < Carrier.MIXING


class _Copy:
    """Copies what carries a fork, with either the fork or all that multiplies it detached."""

    def __init__(
        self, flow: Dataflow, writer: Writer, carried: Collection[fx.Node], fork: fx.Node, *, hold_fork: bool
    ) -> None:
        self.flow = flow
        self.writer = writer
        self.carried = carried
        self.hold_fork = hold_fork
        self.word = "beside" if hold_fork else "gate"
        self.done: dict[fx.Node, fx.Node] = {fork: _held(writer, fork, self.word) if hold_fork else fork}

    def of(self, node: fx.Node) -> fx.Node:
        """The copy of a node that carries the fork."""
        if node not in self.done:
            self.done[node] = self._copied(node)
        return self.done[node]

    def _copied(self, node: fx.Node) -> fx.Node:
        beside = [read for read in values_read(node) if read not in self.carried and is_float(read)]
        # Beside the fork gates are held; beside gates the fork is, and what is learned: once is its derivative taken.
        held = {
            read: _held(self.writer, read, self.word)
            for read in beside
            if (read in self.flow.carries) is not self.hold_fork
        }

        def argument(read: fx.Node) -> fx.Node:
            return self.of(read) if read in self.carried else held.get(read, read)

        copy = self.writer.call(node.target, map_arg(node.args, argument), like=node)
        copy.kwargs = map_arg(node.kwargs, argument)
        return copy


def _held(writer: Writer, node: fx.Node, word: str) -> fx.Node:
    held = writer.call(aten.detach.default, (node,), like=node)
    held.meta[HELD] = word
    return held


def _tensor(argument: Any) -> fx.Node:
    assert isinstance(argument, fx.Node)
    return argument

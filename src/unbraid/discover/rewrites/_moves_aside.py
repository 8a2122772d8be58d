"""Movements between sums, which hide that the sums are one, are moved aside.

- (h + f).view(-1) + g                       h.view(-1) + f.view(-1) + g, where nothing else reads the first sum
- cat([h[None], f[None], g[None]]).sum(0)    stack([h, f, g]).sum(0)
- slice_scatter(h, f, 1, 0, 4)[:, 4:]        h[:, 4:]: what is read lies beside what was written
"""

import operator
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, fx

from unbraid.discover._dataflow import Dataflow
from unbraid.discover._element_maps import Constant, Elements, traced_size
from unbraid.discover._flattened_sums import read_once
from unbraid.discover._summands import summands
from unbraid.discover.rewrites._graph_writer import Writer
from unbraid.graph.operators import BOTH, TABLE, Kind, callee, operator_of

aten = torch.ops.aten

# They move every element once: no casts, nothing that ends gradients, nothing that is repeated.
_MOVES = {key for key, row in TABLE.items() if row.kind is Kind.MOVES} - {
    aten.to,
    aten._to_copy,
    aten.type_as,
    aten.detach,
    aten.expand,
    aten.expand_as,
    aten.broadcast_to,
    aten.view_as_real,
    aten.view_as_complex,
    aten.adjoint,
}


def move_aside(flow: Dataflow, constant: Constant) -> bool:
    """Rewrites the graph; returns whether anything was moved.

    Args:
        flow: the data flow of the graph, which is kept up to date.
        constant: the value of a placeholder that holds a constant, by its name; None for others.
    """
    moved = False
    for node in list(flow.graph.nodes):
        if node.op == "call_function" and node in flow.reached:
            for rewrite in (_past_write, _unstacked, _pushed_down):
                moved |= rewrite(flow, node, constant)
    return moved


def _past_write(flow: Dataflow, node: fx.Node, constant: Constant) -> bool:
    """Read from what a tensor was before another part of it was written."""
    pieces = callee(node) is operator.getitem
    read = node.args[0] if pieces else node
    if not isinstance(read, fx.Node) or not operator_of(read).takes:
        return False
    write, moved = read.args[0], False
    while isinstance(write, fx.Node) and _writes(write):
        elements = Elements(flow, write, constant)
        before, whole = write.args[0], elements.numbers(write)
        numbers = elements.numbers(node)
        if not isinstance(numbers, Tensor) or not isinstance(before, fx.Node) or not isinstance(whole, Tensor):
            break
        source: Any = write.args[1]
        marks = torch.full([*map(traced_size, source.meta["val"].shape)], -1, device="cpu")
        written = elements.written(write, 1, marks)
        if written is None or bool((written.flatten()[numbers.flatten()] < 0).any()):
            break
        if pieces:
            read = Writer(flow, node).call(read.target, (before, *read.args[1:]), like=read)
            node.args = (read, *node.args[1:])
        else:
            node.args = (before, *node.args[1:])
        write, moved = before, True
    return moved


def _writes(node: fx.Node) -> bool:
    """Whether a node writes its second operand into a part of the first, by constant places."""
    row = operator_of(node)
    return row.reader is not None and row.affine == BOTH


def _unstacked(flow: Dataflow, node: fx.Node, constant: Constant) -> bool:
    """Tensors that lie one after the other where a sum or a mean adds them are stacked."""
    if callee(node) not in (aten.sum, aten.mean) or not node.args or node.kwargs.get("dtype") is not None:
        return False
    joined, along = _joined(node), _dimension(node)
    if joined is None or along is None or (callee(joined) is aten.stack and joined is node.args[0]):
        return False
    elements = Elements(flow, joined, constant)
    numbers, whole = elements.numbers(_tensor(node.args[0])), elements.numbers(joined)
    parts: Any = joined.args[0]
    if not isinstance(numbers, Tensor) or not isinstance(whole, Tensor) or numbers.shape[along] != len(parts):
        return False
    order = _order([part.flatten() for part in numbers.unbind(along)], _parts(joined, whole))
    writer = Writer(flow, node)
    operands = [_reshaped(writer, _unmoved(flow, parts[place], node, constant), node) for place in order]
    if not operands or None in operands:
        return False
    stack = writer.call(aten.stack.default, (operands,), like=_tensor(node.args[0]))
    stack.meta["val"] = torch.stack([operand.meta["val"] for operand in operands if operand is not None])
    node.args, node.kwargs = (stack, [0]), {}
    return True


def _joined(node: fx.Node) -> fx.Node | None:
    """The concatenation whose elements a node adds, in whatever shape."""
    above: Any = node.args[0]
    while isinstance(above, fx.Node) and callee(above) in _MOVES and above.op == "call_function":
        above = above.args[0]
    listed = isinstance(above, fx.Node) and callee(above) in (aten.cat, aten.concat, aten.stack) and bool(above.args)
    return above if listed and isinstance(above.args[0], list | tuple) else None


def _dimension(node: fx.Node) -> int | None:
    given: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    given = [given] if isinstance(given, int) else given
    return int(given[0]) if given is not None and len(given) == 1 else None


def _parts(joined: fx.Node, whole: Tensor) -> list[Tensor]:
    """The numbers of each of the tensors that were joined."""
    along: Any = joined.args[1] if len(joined.args) > 1 else joined.kwargs.get("dim", 0)
    tensors: Any = joined.args[0]
    if callee(joined) is aten.stack:
        return [part.flatten() for part in whole.unbind(along)]
    sizes = [traced_size(tensor.meta["val"].shape[along]) for tensor in tensors]
    starts = [0, *accumulate(sizes)]
    pairs = zip(starts, sizes, strict=False)
    return [whole.narrow(along, start, size).flatten() for start, size in pairs]


def _order(pieces: list[Tensor], parts: list[Tensor]) -> list[int]:
    """Which part each of those found is; nothing if one is none."""
    order = [_number_of(one, parts) for one in pieces]
    return order if sorted(order) == list(range(len(parts))) else []


def _number_of(one: Tensor, parts: list[Tensor]) -> int:
    """The number of the part that equals a tensor; −1 if none does."""
    return next((number for number, part in enumerate(parts) if torch.equal(part, one)), -1)


def _reshaped(writer: Writer, tensor: fx.Node, like: fx.Node) -> fx.Node | None:
    """The tensor in the shape of another; None where its sizes are not to be read from it."""
    shape = like.meta["val"].shape
    if str(tensor.meta["val"].shape) == str(shape):
        return tensor
    sizes = list[Any]()
    for size in shape:
        if isinstance(size, int):
            sizes.append(size)
            continue
        places = [k for k, own in enumerate(tensor.meta["val"].shape) if str(own) == str(size)]
        if not places:
            return None
        read = writer.call(aten.sym_size.int, (tensor, places[0]), like=like)
        read.meta["val"] = size
        sizes.append(read)
    return writer.call(aten.reshape.default, (tensor, sizes), like=like)


def _pushed_down(flow: Dataflow, node: fx.Node, constant: Constant) -> bool:
    """Move the operands of a sum instead of the sum, where what is moved is added to something else, and no more."""
    if len(_data(flow, node)) < 2:
        return False
    moved = False
    for operand in _data(flow, node):
        chain, total = [], operand
        while _moves(total) and read_once(total):
            chain.append(total)
            total = _tensor(total.args[0])
        if not chain or not read_once(total) or len(_data(flow, total)) < 2 or not _plain(total):
            continue
        writer, copies = Writer(flow, node), dict[fx.Node, fx.Node]()
        for tensor, _ in summands(total):
            copies[_tensor(tensor)] = _along(writer, reversed(chain), _tensor(tensor))
        first = chain[0]
        terms = [writer.multiple(copies[_tensor(tensor)], factor) for tensor, factor in summands(total)]
        added = writer.sum(terms)
        added.meta = {**total.meta, "val": first.meta["val"]}
        node.replace_input_with(first, added)
        moved = True
    return moved


def _along(writer: Writer, chain: Iterator[fx.Node], tensor: fx.Node) -> fx.Node:
    for move in chain:
        # A view of the sum may be none of its operand, which lies otherwise in memory.
        target = aten.reshape.default if callee(move) is aten.view else move.target
        tensor = writer.call(target, (tensor, *move.args[1:]), like=move)
        tensor.kwargs = dict(move.kwargs)
    return tensor


def _plain(total: fx.Node) -> bool:
    """Whether all that a sum adds are tensors of its sizes and type."""
    value = total.meta["val"]
    tensors = [tensor for tensor, _ in summands(total)]
    return all(
        isinstance(t, fx.Node) and str(t.meta["val"].shape) == str(value.shape) and t.meta["val"].dtype == value.dtype
        for t in tensors
    )


def _unmoved(flow: Dataflow, node: fx.Node, like: fx.Node, constant: Constant) -> fx.Node:
    """What a node was before it was moved, if it had the sizes and the elements of what is asked for."""
    above = node
    while _moves(above):
        above = _tensor(above.args[0])
        same = str(above.meta["val"].shape) == str(like.meta["val"].shape)
        numbers = Elements(flow, above, constant).numbers(node) if same else None
        if isinstance(numbers, Tensor) and torch.equal(numbers.flatten(), torch.arange(numbers.numel(), device="cpu")):
            return above
    return node


def _moves(node: fx.Node) -> bool:
    moves = node.op == "call_function" and callee(node) in _MOVES and bool(node.args)
    return moves and isinstance(node.args[0], fx.Node) and isinstance(node.meta.get("val"), Tensor)


def _data(flow: Dataflow, node: fx.Node) -> list[fx.Node]:
    return [tensor for tensor, _ in summands(node) if isinstance(tensor, fx.Node) and tensor in flow.carries]


def _tensor(argument: Any) -> fx.Node:
    assert isinstance(argument, fx.Node)
    return argument

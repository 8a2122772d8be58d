"""What becomes of a tensor when a view of it is written: the inverse of each view.

    y = h[:, :4]; y += f(h)        h becomes slice_scatter(h, y, 1, 0, 4)
    y = h.transpose(0, 1); y *= 2  h becomes y.transpose(0, 1)

A view that has no inverse by name is undone by what it does to positions: it is applied to 0, 1, 2, ... in the shape of
the base, and what was written is scattered there.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from unbraid.graph.questions import name_of

aten = torch.ops.aten

# Makes an operator's node: its target, its arguments, and a tensor of the sizes and type of its result.
Emit = Callable[[Any, tuple[Any, ...], Any], fx.Node]

_SAME = {
    "alias",
    "detach",
    "lift_fresh",
    "contiguous",
    "to",
    "view_as",
    "positive",
    "type_as",
    "clone",
    "requires_grad_",
}
_RESHAPED = {
    "view", "reshape", "_unsafe_view", "_reshape_alias", "flatten", "unflatten", "squeeze", "unsqueeze", "ravel",
    "reshape_as", "atleast_1d", "atleast_2d", "atleast_3d", "squeeze_", "unsqueeze_",
}  # fmt: skip
_OWN_INVERSE = {
    "transpose", "swapaxes", "swapdims", "t", "numpy_T", "mT", "mH", "adjoint", "conj", "_conj", "_neg_view",
    "t_", "transpose_", "swapaxes_", "swapdims_",
}  # fmt: skip
_IN_PLACE = {"t_": aten.t.default, "transpose_": aten.transpose.int}
_UNDONE = {"view_as_real": aten.view_as_complex.default, "view_as_complex": aten.view_as_real.default}


def inverse(
    view: fx.Node,
    rest: tuple[Any, ...],
    base: fx.Node,
    new: fx.Node,
    emit: Emit,
    apply: Callable[[fx.Node], fx.Node],
) -> fx.Node:
    """The base once a view of it holds new values.

    Args:
        view: the view, as the model made it.
        rest: its arguments after the base, as nodes of the graph in the making.
        base: the node that holds the base's value before.
        new: the node that holds what the view has become.
        emit: makes an operator's node.
        apply: makes the view of another base.
    """
    name, whole = name_of(view), base.meta["val"]
    if name == "getitem":
        return _of_pieces(view, base, new, emit, apply)
    if name in _SAME:
        return new
    if name in _RESHAPED:
        return emit(aten.reshape.default, (new, [*_sizes(base, emit)]), whole)
    if name in _OWN_INVERSE:
        return emit(_IN_PLACE.get(name, view.target), (new, *rest), whole)
    if name in _UNDONE:
        return emit(_UNDONE[name], (new,), whole)
    if name in {"real", "imag"}:
        like = view.meta["val"]
        other = emit({"real": aten.imag, "imag": aten.real}[name].default, (base,), like)
        return emit(aten.complex.default, (new, other) if name == "real" else (other, new), whole)
    if name == "permute":
        order = [dim % whole.ndim for dim in _list(rest[0])]
        return emit(aten.permute.default, (new, [order.index(dim) for dim in range(whole.ndim)]), whole)
    if name in {"movedim", "moveaxis"}:
        return emit(view.target, (new, rest[1], rest[0]), whole)
    if name == "slice":
        return emit(aten.slice_scatter.default, (base, new, *rest), whole)
    if name == "select":
        return emit(aten.select_scatter.default, (base, new, *rest), whole)
    if name == "diagonal":
        return emit(aten.diagonal_scatter.default, (base, new, *rest), whole)
    return _by_position(base, new, emit, apply)


def _of_pieces(view: fx.Node, base: fx.Node, new: fx.Node, emit: Emit, apply: Callable[[fx.Node], fx.Node]) -> fx.Node:
    """One of the pieces that split, chunk or unbind make."""
    pieces, number = view.args
    assert isinstance(pieces, fx.Node)
    assert isinstance(number, int)
    dim = _dimension(pieces)
    values = pieces.meta["val"]
    if name_of(pieces) == "unbind":
        return emit(aten.select_scatter.default, (base, new, dim, number), base.meta["val"])
    sizes = [piece.shape[dim] for piece in values[: number + 1]]
    if all(isinstance(size, int) for size in sizes):
        start = sum(sizes[:-1])
        return emit(aten.slice_scatter.default, (base, new, dim, start, start + sizes[-1]), base.meta["val"])
    return _by_position(base, new, emit, apply)


def _dimension(pieces: fx.Node) -> int:
    for place, argument in enumerate(pieces.target._schema.arguments):  # type: ignore[union-attr]
        if argument.name in {"dim", "axis"}:
            given = pieces.args[place] if place < len(pieces.args) else argument.default_value
            return int(pieces.kwargs.get(argument.name, given))  # type: ignore[arg-type]
    return 0


def _by_position(base: fx.Node, new: fx.Node, emit: Emit, apply: Callable[[fx.Node], fx.Node]) -> fx.Node:
    whole: Tensor = base.meta["val"]
    count = whole.new_empty(whole.shape, dtype=torch.int64)
    ones = emit(aten.ones_like.default, (base,), count)
    ones.kwargs = {"dtype": torch.int64, "memory_format": torch.contiguous_format}
    flat = emit(aten.reshape.default, (ones, [-1]), count.reshape(-1))
    running = emit(aten.cumsum.default, (flat, 0), count.reshape(-1))
    numbered = emit(aten.sub.Tensor, (running, 1), count.reshape(-1))
    positions = apply(emit(aten.reshape.default, (numbered, [*_sizes(base, emit)]), count))
    written = new.meta["val"]
    index = emit(
        aten.reshape.default, (positions, [-1]), written.new_empty(written.shape, dtype=torch.int64).reshape(-1)
    )
    source = emit(aten.reshape.default, (new, [-1]), written.reshape(-1))
    target = emit(aten.reshape.default, (base, [-1]), whole.reshape(-1))
    scattered = emit(aten.scatter.src, (target, 0, index, source), whole.reshape(-1))
    return emit(aten.reshape.default, (scattered, [*_sizes(base, emit)]), whole)


def _sizes(base: fx.Node, emit: Emit) -> list[Any]:
    """The base's sizes: numbers, and for free ones a node that reads them."""
    return [
        size if isinstance(size, int) else emit(aten.sym_size.int, (base, place), size)
        for place, size in enumerate(base.meta["val"].shape)
    ]


def _list(dims: Any) -> list[int]:
    return list(dims)

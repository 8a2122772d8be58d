"""Tensors that are written side by side into an empty one are concatenated, or stacked.

    y = zeros(n, 8); y[:, :4] = x; y[:, 4:] = f(x)      cat([x, f(x)], 1)
    y = empty(2, n); y[0] = x; y[1] = f(x)              stack([x, f(x)])

What nothing is written over keeps its place. Where one write lies over a part of another, all stays as it is.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import fx

from unbraid.discover._dataflow import Dataflow
from unbraid.discover._flattened_sums import read_once
from unbraid.discover.rewrites._concatenations import bounds, known_size
from unbraid.discover.rewrites._graph_writer import Writer
from unbraid.graph.operators import callee

aten = torch.ops.aten


@dataclass(frozen=True)
class _Piece:
    """A tensor and the span in which it is written."""

    source: fx.Node
    start: int
    end: int


def write_beside(flow: Dataflow) -> bool:
    """Write such chains of writes as concatenations and stacks; returns whether there were any."""
    written = False
    for node in reversed([*flow.graph.nodes]):
        along = _dimension(node)
        if along is None or node not in flow.carries or not node.users:
            continue
        base, pieces = _chain(flow, node, along)
        size = known_size(node.meta["val"].shape[along])
        apart = all(before.end <= after.start for before, after in pairwise(pieces))
        if base is None or size is None or not apart or sum(piece.source in flow.carries for piece in pieces) < 2:
            continue
        if callee(node) is aten.slice_scatter:
            node.target, node.args = aten.cat.default, (_filled(flow, node, base, pieces, along, size), along)
            node.kwargs, written = {}, True
        elif len(pieces) == size:
            node.target, node.args = aten.stack.default, ([piece.source for piece in pieces], along)
            node.kwargs, written = {}, True
    return written


def _chain(flow: Dataflow, node: fx.Node, along: int) -> tuple[fx.Node | None, list[_Piece]]:
    """What is written into, None where that carries data, and the pieces in their order in space."""
    pieces, write = list[_Piece](), node
    while True:
        piece = _piece(write, along) if callee(write) is callee(node) and _dimension(write) == along else None
        if piece is None:
            break
        # What a later write covers is gone.
        if not any(later.start <= piece.start and piece.end <= later.end for later in pieces):
            pieces.append(piece)
        base: Any = write.args[0]
        if base not in flow.reached:
            return base, sorted(pieces, key=lambda piece: piece.start)
        if not read_once(base):
            break
        write = base
    return None, []


def _dimension(node: fx.Node) -> int | None:
    """The dimension along which a node writes a tensor into another; None if it does not."""
    if node.op != "call_function" or callee(node) not in (aten.slice_scatter, aten.select_scatter):
        return None
    given: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    return int(given) % node.meta["val"].ndim


def _piece(node: fx.Node, along: int) -> _Piece | None:
    source: Any = node.args[1]
    size = known_size(node.meta["val"].shape[along])
    if not isinstance(source, fx.Node) or size is None or source.meta["val"].dtype != _type(node):
        return None
    if callee(node) is aten.select_scatter:
        place = node.args[3]
        return _Piece(source, place % size, place % size + 1) if isinstance(place, int) else None
    covered = bounds(node, size)
    return None if covered is None else _Piece(source, *covered)


def _type(node: fx.Node) -> torch.dtype:
    kind: torch.dtype = node.meta["val"].dtype
    return kind


def _filled(flow: Dataflow, node: fx.Node, base: fx.Node, pieces: list[_Piece], along: int, size: int) -> list[fx.Node]:
    """The tensors side by side, with what the base has between them."""
    writer, tensors, place = Writer(flow, node), list[fx.Node](), 0
    for piece in [*pieces, _Piece(base, size, size)]:
        if place < piece.start:
            gap = writer.call(aten.slice.Tensor, (base, along, place, piece.start), like=base)
            gap.meta["val"] = node.meta["val"].narrow(along, place, piece.start - place)
            tensors.append(gap)
        if piece.start < piece.end:
            tensors.append(piece.source)
        place = piece.end
    return tensors

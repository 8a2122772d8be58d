"""Concatenations that grow: a list that is concatenated anew at each layer, and a tensor that grows, are one network.

So are a list that is stacked anew and a stack that grows by one. A concatenation that repeats an earlier one is written
with it:

    cat[x, f1]; cat[x, f1, f2]              cat[x, f1] = h;  cat[h, f2]
    stack[v0, v1]; stack[v0, v1, v2]        cat[v0', v1'] = h;  cat[h, v2']         v': v with a dimension more
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from unbraid.discover._dataflow import Dataflow
from unbraid.discover.rewrites._concatenations import HALVES, concatenated, is_concatenation, known_size, spans_of
from unbraid.discover.rewrites._stacks import grow_stacks, stacked
from unbraid.graph.operators import callee

aten = torch.ops.aten


def grow(flow: Dataflow) -> bool:
    """Write each concatenation, or stack, that repeats an earlier one with that one; returns whether there were any."""
    written = _renamed(flow) | _put_together_again(flow) | grow_stacks(flow)
    known: dict[tuple[int, tuple[fx.Node, ...]], fx.Node] = {}
    for node in list(flow.graph.nodes):
        if not is_concatenation(node) or node not in flow.carries:
            continue
        tensors, along = concatenated(node)
        whole = (*tensors,)
        for first, last in _runs(len(tensors)):
            earlier = known.get((along, whole[first:last]))
            if earlier is not None and flow.order[earlier] < flow.order[node]:
                node.args = ([*tensors[:first], earlier, *tensors[last:]], along % node.meta["val"].ndim)
                node.kwargs = {}
                written = True
                break
        known[along, whole] = node
    return written


# Concatenations by other names, with the dimension along which they join what has at least so many dimensions.
_NAMED = {aten.hstack: (1, 2), aten.column_stack: (1, 2), aten.vstack: (0, 2), aten.dstack: (2, 3)}


def _renamed(flow: Dataflow) -> bool:
    """Write concatenations by other names as such; returns whether there were any."""
    written = False
    for node in flow.graph.nodes:
        if node.op != "call_function" or not node.args:
            continue
        if callee(node) in (aten.concat, aten.concatenate):
            node.target, written = aten.cat.default, True
        elif callee(node) in _NAMED:
            along, least = _NAMED[callee(node)]
            if all(tensor.meta["val"].ndim >= least for tensor in stacked(node)):
                node.target, node.args, node.kwargs, written = aten.cat.default, (node.args[0], along), {}, True
    return written


def _put_together_again(flow: Dataflow) -> bool:
    """Leave out what takes a tensor apart and puts the parts side by side again, or the other way round.

    cat[a, b, f(b)], (a, b) = chunk(y)      cat[y, f(b)]
    (a, b) = chunk(cat[c, d])               a = c, b = d

    Of the latter it is noted which tensors were one: a coupling puts its halves in the place of that one.
    """
    written = False
    for node in list(flow.graph.nodes):
        part = _part(node)
        if part is not None and is_concatenation(part.whole):
            tensors, along = concatenated(part.whole)
            spans = spans_of([tensor.meta["val"].shape[along] for tensor in tensors])
            if along == part.along and part.span in spans:
                half = tensors[spans.index(part.span)]
                half.meta[HALVES] = (part.whole.meta["val"].shape[along], (*tensors,))
                _stands_for(node, half)
                written = True
        elif is_concatenation(node):
            tensors, along = concatenated(node)
            parts = [_part(tensor) for tensor in tensors]
            for first, last in _every_run(len(tensors)):
                whole = _whole(parts[first:last], along)
                if whole is not None:
                    rest = [*tensors[:first], whole, *tensors[last:]]
                    if len(rest) == 1:
                        _stands_for(node, whole)
                    else:
                        node.args, node.kwargs = (rest, along % node.meta["val"].ndim), {}
                    written = True
                    break
    return written


def _stands_for(node: fx.Node, tensor: fx.Node) -> None:
    """Let all that read a node read a tensor instead; what the model returns keeps its name."""
    node.replace_all_uses_with(tensor, delete_user_cb=lambda user: user.op != "output")


@dataclass(frozen=True)
class _Part:
    """A tensor that is a span of another.

    Attributes:
        whole: the other.
        along: the dimension, counted from the last.
        span: where it begins, and its length.
    """

    whole: fx.Node
    along: int
    span: tuple[int, int]


def _part(node: fx.Node) -> _Part | None:
    """What a node is a span of; None where it is none, or where that is not known."""
    if node.op != "call_function" or not isinstance(node.meta.get("val"), Tensor) or not node.args:
        return None
    of: Any = node.args[0]
    if callee(node) is operator.getitem and isinstance(node.args[1], int) and callee(of) in _SPLITS:
        whole: Any = of.args[0]
        along = _split_along(of, whole)
        sizes = [part.shape[along] for part in of.meta["val"]]
        spans = spans_of(sizes)
        return _Part(whole, along, spans[node.args[1]]) if spans else None
    return None


_SPLITS = (aten.split, aten.split_with_sizes, aten.chunk, aten.tensor_split)


def _split_along(node: fx.Node, whole: fx.Node) -> int:
    given: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    rank = whole.meta["val"].ndim
    return int(given) % rank - rank


def _every_run(count: int) -> list[tuple[int, int]]:
    """The runs of at least two of so many, the longest first."""
    runs = list[tuple[int, int]]()
    for length in range(count, 1, -1):
        runs += [(first, first + length) for first in range(count - length + 1)]
    return runs


def _whole(parts: Sequence[_Part | None], along: int) -> fx.Node | None:
    """The tensor that some spans, one after the other, make up."""
    first = parts[0]
    if first is None or any(part is None or part.whole is not first.whole for part in parts):
        return None
    place = 0
    for part in parts:
        assert part is not None, "they are parts of one tensor"
        if part.along != along or part.span[0] != place:
            return None
        place += part.span[1]
    return first.whole if place == known_size(first.whole.meta["val"].shape[along]) else None


def _runs(count: int) -> list[tuple[int, int]]:
    """The runs of at least two of so many, but not all, the longest first; those at the beginning or the end."""
    runs = [(0, length) for length in range(count - 1, 1, -1)] + [
        (count - length, count) for length in range(count - 1, 1, -1)
    ]
    return sorted(runs, key=lambda run: run[0] - run[1])

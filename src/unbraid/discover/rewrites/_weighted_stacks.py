"""A stack of which weights read every tensor once is the sum of these, each times its weight.

    (stack([x, f]) * w).sum(0)
    stack([x, f], −1) @ w               w₀·x + w₁·f
    einsum("n,nbd->bd", w, stack([x, f]))
    tensordot(w, stack([x, f]), 1)

So x + t·(f − x) is a gate in these spellings, too. A stack that grows with depth is a concatenation (attention over
depth), and written as such before. Where no tensor of a stack is computed from another, as of experts that are weighed,
there is nothing to find, and the stack stays.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from unbraid.discover._dataflow import Dataflow, same_shape
from unbraid.discover._flattened_sums import read_once
from unbraid.discover.rewrites._concatenations import known_size
from unbraid.discover.rewrites._graph_writer import Writer
from unbraid.discover.rewrites._stacks import hang_together, is_stack, stacked, stacked_along
from unbraid.graph.operators import callee

aten = torch.ops.aten

_LETTERS = "ZYXWVUTSRQPONMLKJIHGFEDCBA"  # for the dimensions that "..." stands for


@dataclass(frozen=True)
class _Weighted:
    """A contraction of a stack along the dimension in which it was stacked.

    Attributes:
        stack: the stack.
        weights: what it is multiplied by.
        of_weights: a letter for each dimension of the weights, "#" for the stacked one, " " for one of a single row.
        result: a letter for each dimension of the result, " " for that of the single row.
        bias: what is added; None for nothing.
    """

    stack: fx.Node
    weights: fx.Node
    of_weights: str
    result: str
    bias: fx.Node | None = None


def weigh(flow: Dataflow) -> bool:
    """Write stacks that are summed with weights as sums of products; returns whether there were any."""
    written = False
    for node in list(flow.graph.nodes):
        if node.op == "call_function" and node in flow.carries:
            weighted = _contraction(node)
            if weighted is not None and hang_together(flow, stacked(weighted.stack)):
                _as_sum(flow, node, weighted)
                written = True
    return written


def _contraction(node: fx.Node) -> _Weighted | None:
    if callee(node) is aten.sum:
        return _summed_product(node)
    if callee(node) in (aten.matmul, aten.bmm, aten.mm, aten.mv):
        return _matrix_product(node)
    if callee(node) is aten.linear:
        return _linear(node)
    if callee(node) is aten.einsum:
        equation: Any = node.args[0]
        tensors: Any = node.args[1]
        return _einsum(equation.replace(" ", ""), [*tensors])
    if callee(node) is aten.tensordot:
        return _tensordot(node)
    return None


def _summed_product(node: fx.Node) -> _Weighted | None:
    product, dimensions, *keeps = [*node.args, None][:3]
    if not isinstance(product, fx.Node) or callee(product) is not aten.mul or not read_once(product):
        return None
    if any(keeps) or node.kwargs.get("keepdim") or node.kwargs.get("dtype") is not None:
        return None
    for _, stack, weights in _stack_and_weights(product.args):
        if not same_shape(stack, product):
            continue
        rank, along = stack.meta["val"].ndim, stacked_along(stack)
        summed: Any = [dimensions] if isinstance(dimensions, int) else dimensions or []
        if len(summed) != 1 or summed[0] % rank != along:
            return None
        letters = _letters(rank, along)
        read = letters[rank - weights.meta["val"].ndim :]
        one_each = "#" in read and _size(weights, read.index("#")) == len(stacked(stack))
        return _Weighted(stack, weights, read, letters.replace("#", "")) if one_each else None
    return None


def _matrix_product(node: fx.Node) -> _Weighted | None:
    for place, stack, weights in _stack_and_weights(node.args):
        row = place == 1
        inner = -2 if row else -1
        rank, count = stack.meta["val"].ndim, weights.meta["val"].ndim
        if rank < 2 or stacked_along(stack) != rank + inner:
            continue
        letters = _letters(rank, rank + inner)
        rest = letters.replace("#", "")
        if count == 1:
            return _Weighted(stack, weights, "#", rest)
        if _size(weights, -2 if row else -1) != 1 or count > rank or rank < 3:
            continue
        batch = rest[:-1][rank - count :]
        result = f"{rest[:-1]} {rest[-1]}" if row else rest + " "
        return _Weighted(stack, weights, batch + (" #" if row else "# "), result)
    return None


def _linear(node: fx.Node) -> _Weighted | None:
    """A linear layer with one output, over the stacked dimension."""
    bias: Any = node.args[2] if len(node.args) > 2 else None
    for place, stack, weights in _stack_and_weights(node.args):
        rank = stack.meta["val"].ndim
        if place == 0 and stacked_along(stack) == rank - 1 and _size(weights, 0) == 1:
            return _Weighted(stack, weights, " #", _letters(rank, rank - 1).replace("#", " "), bias)
    return None


def _einsum(equation: str, tensors: Sequence[Any]) -> _Weighted | None:
    inputs, arrow, output = equation.partition("->")
    letters = inputs.split(",")
    if not arrow or len(letters) != 2:
        return None
    for place, stack, weights in _stack_and_weights(tensors):
        unused = "".join(letter for letter in _LETTERS if letter not in equation)
        hidden = unused[: stack.meta["val"].ndim - len(letters[place].replace("...", ""))]
        own, others = letters[place].replace("...", hidden), letters[1 - place]
        spare = weights.meta["val"].ndim - len(others.replace("...", ""))
        others = others.replace("...", hidden[len(hidden) - spare :] if spare else "")
        summed = own[stacked_along(stack)]
        fits = output.replace("...", hidden) == own.replace(summed, "") and {summed} <= {*others} <= {*own}
        if fits and len({*own}) == len(own) and len({*others}) == len(others):
            return _Weighted(stack, weights, others.replace(summed, "#"), own.replace(summed, ""))
    return None


def _tensordot(node: fx.Node) -> _Weighted | None:
    dimensions: Any = node.args[2:4]
    for place, stack, weights in _stack_and_weights(node.args):
        rank, summed = stack.meta["val"].ndim, dimensions[place]
        if weights.meta["val"].ndim == len(summed) == 1 and summed[0] % rank == stacked_along(stack):
            return _Weighted(stack, weights, "#", _letters(rank, stacked_along(stack)).replace("#", ""))
    return None


def _size(tensor: fx.Node, place: int) -> int | None:
    """A size; None where it is free, which a comparison with a number would fix."""
    return known_size(tensor.meta["val"].shape[place])


def _letters(rank: int, along: int) -> str:
    """A letter for each dimension, "#" for the stacked one."""
    letters = "abcdefghijklmnopqrstuvwxyz"[:rank]
    return letters[:along] + "#" + letters[along + 1 :]


def _stack_and_weights(factors: Sequence[Any]) -> Iterator[tuple[int, fx.Node, fx.Node]]:
    """Each of the first two factors that is a stack, with its place, and the other one."""
    for place in (0, 1):
        stack, weights = factors[place], factors[1 - place]
        if isinstance(stack, fx.Node) and isinstance(weights, fx.Node) and is_stack(stack):
            yield place, stack, weights


def _as_sum(flow: Dataflow, node: fx.Node, weighted: _Weighted) -> None:
    writer, parts = Writer(flow, node), list[fx.Node]()
    for number, tensor in enumerate(stacked(weighted.stack)):
        weight = _weight(writer, weighted, number)
        weight = _aligned(writer, weight, weighted.of_weights.replace("#", ""), weighted.result)
        place = weighted.result.find(" ")
        whole = tensor if place < 0 else _with_one_more(writer, tensor, place)
        parts.append(writer.call(aten.mul.Tensor, (whole, weight), like=node))
    writer.sum(parts if weighted.bias is None else [*parts, weighted.bias], at=node)


def _weight(writer: Writer, weighted: _Weighted, number: int) -> fx.Node:
    """The weight of one of the stacked tensors."""
    weights, place = weighted.weights, weighted.of_weights.index("#")
    if is_stack(weights) and stacked_along(weights) == place:
        return stacked(weights)[number]
    weight = writer.call(aten.select.int, (weights, place, number), like=weights)
    weight.meta["val"] = weights.meta["val"].select(place, number)
    return weight


def _aligned(writer: Writer, weight: fx.Node, letters: str, result: str) -> fx.Node:
    """The weight with a dimension for each of the result's, of size one where it has none: as a product spreads it."""
    for place in reversed(range(len(letters))):
        if letters[place] == " ":
            value = weight.meta["val"].squeeze(place)
            weight = writer.call(aten.squeeze.dim, (weight, place), like=weight)
            weight.meta["val"], letters = value, letters[:place] + letters[place + 1 :]
    order = sorted(range(len(letters)), key=lambda place: result.index(letters[place]))
    if order != [*range(len(letters))]:
        value = weight.meta["val"].permute(order)
        weight = writer.call(aten.permute.default, (weight, order), like=weight)
        weight.meta["val"] = value
    for place, letter in enumerate(result):
        if letter not in letters or letter == " ":
            weight = _with_one_more(writer, weight, place)
    return weight


def _with_one_more(writer: Writer, tensor: fx.Node, place: int) -> fx.Node:
    whole = writer.call(aten.unsqueeze.default, (tensor, place), like=tensor)
    whole.meta["val"] = tensor.meta["val"].unsqueeze(place)
    return whole

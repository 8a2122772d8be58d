"""Attention branches split by head: where a graph shows the heads, each becomes a branch of its block.

    f(h) = W concat(o_1, …, o_H) + b = Σ_i W_i o_i + b

The heads are found in the data flow: the result of an attention product, of shape [..., heads, width], is merged to
[..., heads·width], and what follows up to the addition is affine. Then head i is that affine end applied to the merged
tensor with all other heads at zero, less its constant; the constant is a branch of its own, which no path passes.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, fx, nn

from unbraid.form._block import Block
from unbraid.form._signature import Sizes, sizes
from unbraid.graph import Add, Graph, Segment, Step, Stream, affine, is_float, makes, name_of, reads, shape_only

# Into what branches are split: their attention heads, or nothing further.
Split: TypeAlias = Literal["heads"] | None

_MERGES = frozenset({"view", "reshape", "_unsafe_view", "flatten", "_reshape_alias"})
_PRODUCTS = frozenset({"matmul", "bmm", "einsum"})
_SYMBOL = re.compile(r"\b[A-Za-z]+\d*\b")


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


def by_heads(graph: Graph, blocks: tuple[Block, ...]) -> tuple[Graph, tuple[Block, ...]]:
    """The graph and the blocks with every attention branch split by head, where the graph shows the heads.

    Raises:
        ValueError: it shows none; the reason for each branch is given.
    """
    found, reasons = _search(graph, blocks)
    if not found:
        said = "; ".join(f"{reason} ({times}x)" for reason, times in reasons.most_common(4))
        raise ValueError(f"split: no branch of this graph shows attention heads: {said}.")
    made = {segment.id: _parted(graph, segment, heads) for segment, heads in found}
    parts = {segment.outputs[0]: made[segment.id].operands for segment, _ in found}
    numbers = {add.block: _renumbered(add, parts) for add in graph.adds}
    steps: list[Step] = []
    for step in graph.steps:
        if isinstance(step, Add):
            operands = (parts.get(stream, (stream,)) if stream else (stream,) for stream in step.branches)
            steps.append(replace(step, branches=tuple(stream for some in operands for stream in some)))
        else:
            steps += made[step.id].segments if step.id in made else [_moved(step, numbers)]
    streams = dict(graph.streams) | {stream.id: stream for some in made.values() for stream in some.streams}
    branches = {add.block: add.branches for add in graph.adds}
    divided = replace(graph, steps=tuple(steps), streams=streams)
    return divided, tuple(_named(block, branches, parts, numbers) for block in blocks)


def _search(graph: Graph, blocks: tuple[Block, ...]) -> tuple[list[tuple[Segment, Heads]], Counter[str]]:
    """The segments of the branches that can be parted, and why the others cannot."""
    maker = {stream: step for step in graph.steps for stream in makes(step)}
    readers = Counter(stream for step in graph.steps for stream in reads(step)) + Counter(graph.outputs)
    holding = {block.parent for block in _all(blocks)}
    found: list[tuple[Segment, Heads]] = []
    reasons: Counter[str] = Counter()
    for add in graph.adds:
        for number, stream in enumerate(add.branches, start=1):
            segment = maker.get(stream) if stream is not None else None
            if stream is None or not isinstance(segment, Segment):
                continue
            heads = _heads(graph, segment, readers[stream], (add.block, number) in holding)
            if isinstance(heads, Heads):
                found.append((segment, heads))
            else:
                reasons[heads] += 1
    return found, reasons


def _heads(graph: Graph, segment: Segment, readers: int, holds: bool) -> Heads | str:
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


@dataclass(frozen=True)
class Parted:
    """What takes the place of a segment.

    Attributes:
        segments: what the heads share, the constant of their end, and each head.
        streams: what these make.
        operands: the new operands of the addition: each head, and the constant where there is one.
    """

    segments: list[Segment]
    streams: list[Stream]
    operands: tuple[str, ...]


def _parted(graph: Graph, segment: Segment, heads: Heads) -> Parted:
    (whole,) = segment.outputs
    merged = f"{whole}.heads"
    like = graph.streams[whole]
    called = _called(graph, segment)
    streams = [Stream(merged, called(sizes(heads.merged.meta["val"])), heads.merged.meta["val"].dtype)]
    segments = [_piece(segment, merged, heads, None)]
    names = tuple(f"{whole}.head.{number}" for number in range(heads.count))
    constant = f"{whole}.constant" if heads.shifted else None
    if constant is not None:
        segments.append(_piece(segment, constant, heads, "constant", reads_from=merged))
        streams.append(replace(like, id=constant))
    for number, name in enumerate(names):
        segments.append(_piece(segment, name, heads, number, reads_from=merged, less=constant))
        streams.append(replace(like, id=name))
    return Parted(segments, streams, (*names, *([constant] if constant else [])))


def _piece(
    segment: Segment,
    name: str,
    heads: Heads,
    what: int | str | None,
    *,
    reads_from: str | None = None,
    less: str | None = None,
) -> Segment:
    """One part of a segment: up to the merge (None), one head's end (its number), or the end's constant."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    placeholders = [node for node in segment.code.graph.nodes if node.op == "placeholder"]  # type: ignore[attr-defined]
    streams = dict(zip(placeholders, segment.inputs, strict=False))
    params = dict(zip(placeholders[len(segment.inputs) :], segment.params, strict=True))
    body = _body(segment, heads, what)
    used = {argument for node in body for argument in node.all_input_nodes}
    inputs, measured = [node for node in streams if node in used], set(segment.measured)
    merged = less_node = None
    if reads_from is not None:
        merged = graph.placeholder("merged")
        merged.meta["val"] = heads.merged.meta["val"]
    if less is not None:
        less_node = graph.placeholder("less")
    weights = [node for node in params if node in used]
    for node in (*inputs, *weights):
        copies[node] = graph.node_copy(node)
    if merged is not None:
        # Of the segment's other inputs the end reads sizes alone: data would have made it no affine end.
        measured |= {streams[node] for node in inputs if is_float(node)}
        copies[heads.merged] = _alone(graph, merged, heads, what)
    for node in body:
        copies[node] = graph.node_copy(node, lambda n: copies[n])
    result = copies[body[-1] if body else heads.merged]
    if less_node is not None:
        result = graph.call_function(torch.ops.aten.sub.Tensor, (result, less_node))
        result.meta["val"] = body[-1].meta["val"]
    graph.output(result)
    first = [stream for stream in (reads_from, less) if stream is not None]
    if what == "constant" and reads_from is not None:
        measured.add(reads_from)
    read = (*first, *(streams[node] for node in inputs))
    return replace(
        segment,
        id=name,
        inputs=read,
        outputs=(name,),
        code=fx.GraphModule(nn.Module(), graph, class_name="part"),
        params=tuple(params[node] for node in weights),
        branch=None,
        measured=frozenset(measured.intersection(read)),
    )


def _body(segment: Segment, heads: Heads, what: int | str | None) -> list[fx.Node]:
    """The calls that a part makes, in order: what the merged tensor needs, or the end and what it needs beside it."""
    last = heads.merged if what is None else heads.end[-1]
    needed, waiting = set[fx.Node](), [last]
    while waiting:
        node = waiting.pop()
        if node in needed or (what is not None and node is heads.merged):
            continue
        needed.add(node)
        waiting += node.all_input_nodes
    code: Any = segment.code
    return [node for node in code.graph.nodes if node in needed and node.op == "call_function"]


def _alone(graph: fx.Graph, merged: fx.Node, heads: Heads, what: int | str | None) -> fx.Node:
    """The merged tensor with one head alone, or with none."""
    if what == "constant":
        return graph.call_function(torch.ops.aten.zeros_like.default, (merged,))
    assert isinstance(what, int)
    value = heads.merged.meta["val"]
    chosen = graph.call_function(torch.ops.aten.slice.Tensor, (merged, value.ndim - 2, what, what + 1))
    chosen.meta["val"] = value[..., what : what + 1, :]
    around = [0, 0, what, heads.count - 1 - what]
    padded = graph.call_function(torch.ops.aten.constant_pad_nd.default, (chosen, around))
    padded.meta["val"] = value
    return padded


def _called(graph: Graph, segment: Segment) -> Any:
    """The names that the form gives to free sizes, from those of the segment's inputs."""
    names: dict[str, str] = {}
    code: Any = segment.code
    placeholders = (node for node in code.graph.nodes if node.op == "placeholder")
    for node, stream in zip(placeholders, segment.inputs, strict=False):
        value = node.meta.get("val")
        shape = sizes(value) if isinstance(value, Tensor) else ()
        names.update(
            (traced, known)
            for traced, known in zip(shape, graph.streams[stream].shape, strict=False)
            if isinstance(traced, str) and isinstance(known, str) and _SYMBOL.fullmatch(traced)
        )

    def called(shape: Sizes) -> Sizes:
        return tuple(
            size if isinstance(size, int) else _SYMBOL.sub(lambda s: names.get(s[0], s[0]), size) for size in shape
        )

    return called


def _renumbered(add: Add, parts: Mapping[str, tuple[str, ...]]) -> dict[int, int]:
    """The new number of each branch that stays whole."""
    numbers, place = {}, 1
    for number, stream in enumerate(add.branches, start=1):
        numbers[number] = place
        place += len(parts.get(stream, (stream,))) if stream else 1
    return numbers


def _moved(segment: Segment, numbers: Mapping[int, Mapping[int, int]]) -> Segment:
    if segment.block is None or segment.branch is None:
        return segment
    return replace(segment, branch=numbers[segment.block][segment.branch])


def _named(
    block: Block,
    operands: Mapping[int, tuple[str | None, ...]],
    parts: Mapping[str, tuple[str, ...]],
    numbers: Mapping[int, Mapping[int, int]],
) -> Block:
    """The block with a name for each head, and "constant" for what the heads' end adds."""
    branches: list[str] = []
    for name, stream in zip(block.branches, operands[block.index], strict=True):
        split = parts.get(stream, ()) if stream else ()
        branches += [f"{name} {part.removeprefix(f'{stream}.').replace('.', ' ')}" for part in split] or [name]
    parent = block.parent and (block.parent[0], numbers[block.parent[0]][block.parent[1]])
    nested = tuple(_named(inner, operands, parts, numbers) for inner in block.nested)
    return replace(block, branches=tuple(branches), parent=parent, nested=nested)


def _all(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    return tuple(found for block in blocks for found in (block, *_all(block.nested)))

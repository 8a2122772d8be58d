"""The segments that take the place of an attention branch's: what its heads share, their constant, and each head."""

import re
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from unbraid.capture.signature import Sizes, sizes
from unbraid.discover._attention_heads import Heads
from unbraid.graph import Graph, Segment, Stream, runnable
from unbraid.graph.questions import is_float

_SYMBOL = re.compile(r"\b[A-Za-z]+\d*\b")


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


def parted(graph: Graph, segment: Segment, heads: Heads) -> Parted:
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
    used = set[fx.Node]().union(*(node.all_input_nodes for node in body))
    inputs, size_only = [node for node in streams if node in used], set(segment.size_only)
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
        size_only |= {streams[node] for node in inputs if is_float(node)}
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
        size_only.add(reads_from)
    read = (*first, *(streams[node] for node in inputs))
    return replace(
        segment,
        id=name,
        inputs=read,
        outputs=(name,),
        code=runnable(graph, "part"),
        params=tuple(params[node] for node in weights),
        branch=None,
        size_only=frozenset(size_only.intersection(read)),
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

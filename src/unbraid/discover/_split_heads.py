"""Attention branches split by head: where a graph shows the heads, each becomes a branch of its block.

    f(h) = W concat(o_1, …, o_H) + b = Σ_i W_i o_i + b

The heads are found in the data flow: the result of an attention product, of shape [..., heads, width], is merged to
[..., heads·width], and what follows up to the addition is affine. Then head i is that affine end applied to the merged
tensor with all other heads at zero, less its constant; the constant is a branch of its own, which no path passes.
A norm after the projection (Gemma 2's) is no sum over heads, and is refused with that reason.

Heads are found in the data flow and cut in the graph, so that every analysis sees a block with more branches, and none
knows about attention.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Literal, TypeAlias

from unbraid.discover._attention_heads import Heads, heads_of
from unbraid.discover._block import Block
from unbraid.discover._head_segments import parted
from unbraid.graph import Add, Graph, Segment, Step, reads

# Into what branches are split: their attention heads, or nothing further.
Split: TypeAlias = Literal["heads"] | None


def by_heads(graph: Graph, blocks: tuple[Block, ...]) -> tuple[Graph, tuple[Block, ...]]:
    """The graph and the blocks with every attention branch split by head, where the graph shows the heads.

    Raises:
        ValueError: it shows none; the reason for each branch is given.
    """
    splittable, reasons = _search(graph, blocks)
    if not splittable:
        said = "; ".join(f"{reason} ({times}x)" for reason, times in reasons.most_common(4))
        raise ValueError(f"split: no branch of this graph shows attention heads: {said}.")
    parted_at = {segment.id: parted(graph, segment, heads) for segment, heads in splittable}
    parts = {segment.outputs[0]: parted_at[segment.id].operands for segment, _ in splittable}
    numbers = {add.block: _renumbered(add, parts) for add in graph.adds}
    steps: list[Step] = []
    for step in graph.steps:
        if isinstance(step, Add):
            operands = (parts.get(stream, (stream,)) if stream else (stream,) for stream in step.branches)
            steps.append(replace(step, branches=tuple(chain.from_iterable(operands)), order=()))
        else:
            steps += parted_at[step.id].segments if step.id in parted_at else [_moved(step, numbers)]
    new_streams = chain.from_iterable(some.streams for some in parted_at.values())
    streams = dict(graph.streams) | {stream.id: stream for stream in new_streams}
    branches = {add.block: add.branches for add in graph.adds}
    divided = replace(graph, steps=tuple(steps), streams=streams)
    return divided, tuple(_named(block, branches, parts, numbers) for block in blocks)


def _search(graph: Graph, blocks: tuple[Block, ...]) -> tuple[list[tuple[Segment, Heads]], Counter[str]]:
    """The segments of the branches that can be parted, and why the others cannot."""
    readers = Counter(chain.from_iterable(map(reads, graph.steps))) + Counter(graph.outputs)
    holding = {block.parent for block in _all(blocks)}
    splittable: list[tuple[Segment, Heads]] = []
    reasons: Counter[str] = Counter()
    for add in graph.adds:
        for number, stream in enumerate(add.branches):
            segment = graph.makers.get(stream) if stream is not None else None
            if stream is None or not isinstance(segment, Segment):
                continue
            heads = heads_of(graph, segment, readers[stream], (add.block, number) in holding)
            if isinstance(heads, Heads):
                splittable.append((segment, heads))
            else:
                reasons[heads] += 1
    return splittable, reasons


def _renumbered(add: Add, parts: Mapping[str, tuple[str, ...]]) -> dict[int, int]:
    """The new number of each branch that stays whole."""
    numbers, place = {}, 0
    for number, stream in enumerate(add.branches):
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
    every: list[Block] = []
    for block in blocks:
        every += [block, *_all(block.nested)]
    return tuple(every)

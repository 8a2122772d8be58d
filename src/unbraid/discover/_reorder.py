"""The blocks of a form in another order.

Streams keep their places and blocks move. A block's unit is fork to next fork, transitions included; what reads the
trunk between two blocks still reads that position.
"""

import operator
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, pairwise

from unbraid.discover._block import Block
from unbraid.discover._movable_units import Unit, units
from unbraid.discover._moved_steps import moved_step, read_instead
from unbraid.discover._which_block import BlockLike, index_of
from unbraid.errors import ShapeError
from unbraid.graph import Graph, Step, makes, reads


def reorder(
    graph: Graph, blocks: Sequence[Block], order: Sequence[int], stream: str, wanted: Sequence[BlockLike]
) -> tuple[Graph, tuple[int, ...]]:
    """Move blocks; see `ResidualForm.reorder`.

    Args:
        graph: the graph.
        blocks: its top-level blocks, by index.
        order: the indices of the blocks as they run now.
        stream: what the last block hands to the head.
        wanted: for each position the block that is to run there.

    Returns:
        The graph, and the indices of the blocks as they run in it; none where that is the model's own order.
    """
    positions = [_position(blocks, order, block) for block in wanted]
    if sorted(positions) != [*range(len(blocks))]:
        raise ValueError(
            f"reorder: the order must hold each of the positions 0 to {len(blocks) - 1} once; got {positions}."
        )
    present = [blocks[index] for index in order]
    reordered = _reordered(graph, units(graph, present, stream), present, positions)
    moved = tuple(present[position].index for position in positions)
    return reordered, () if moved == tuple(range(len(moved))) else moved


def _position(blocks: Sequence[Block], order: Sequence[int], block: BlockLike) -> int:
    """The present position of a block: by name it moves with the block, and a number says the position itself."""
    if isinstance(block, str | Block):
        return order.index(index_of(blocks, block, "reorder", nested=False))
    number = operator.index(block)
    return number + len(blocks) if number < 0 else number


def interchangeable(graph: Graph, blocks: Sequence[Block], order: Sequence[int], stream: str) -> list[list[int]]:
    """Groups of positions; see `ResidualForm.interchangeable`."""
    present = [blocks[index] for index in order]
    position = {block.index: number for number, block in enumerate(present)}
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, trunk in enumerate(units(graph, present, stream)):
        for unit in trunk:
            sizes = [graph.streams[stream].shape for stream in (unit.fork, unit.end, *unit.beside.values())]
            alone = () if unit.free else (unit.block.index,)
            groups.setdefault((number, *alone, *unit.beside, *sizes), []).append(position[unit.block.index])
    return list(groups.values())


def _reordered(graph: Graph, trunks: Sequence[Sequence[Unit]], blocks: Sequence[Block], order: Sequence[int]) -> Graph:
    """The graph with its blocks in another order; streams keep their places, blocks move between them.

    Args:
        graph: the graph.
        trunks: its movable pieces.
        blocks: the blocks in the order in which they run.
        order: for each position the present position of the block that is to run there.

    Raises:
        ValueError: a block would leave its trunk, or would run before something that it reads.
        ShapeError: two blocks that would meet disagree in shape.
    """
    lists: list[list[Step]] = [[step] for step in graph.steps]
    streams = dict(graph.streams)
    position = {block.index: number for number, block in enumerate(blocks)}
    on: dict[int, tuple[Sequence[Unit], Unit]] = {}
    for trunk in trunks:
        on |= {unit.block.index: (trunk, unit) for unit in trunk}
    for trunk in trunks:
        moved = []
        for here in trunk:
            comes = blocks[order[position[here.block.index]]]
            if comes.index not in on and comes.trunk == here.block.trunk:
                raise ValueError(
                    f"reorder: block {comes.index} ({comes.name!r}) is gone: nothing reads it without the branches "
                    "that were deleted. Reorder first, and delete then."
                )
            if comes.index not in on or on[comes.index][0] is not trunk:
                raise _elsewhere(comes, here.block)
            moved.append(on[comes.index][1])
        _check_shapes(graph, trunk, moved)
        for here, unit in zip(trunk, moved, strict=True):
            along = {unit.fork: here.fork, unit.end: here.end}
            inside = read_instead(graph, unit, here)
            steps = [moved_step(graph.steps[place], unit.block, along, inside) for place in unit.places]
            fits = len(steps) == len(here.places)
            for number, place in enumerate(here.places):
                lists[place] = [steps[number]] if fits else [] if number else steps
            streams[here.end] = replace(graph.streams[unit.end], id=here.end)
    gone = {block.index for block in blocks} - on.keys()
    for number, block in enumerate(blocks):
        if block.index in gone and blocks[order[number]].index not in gone:
            raise _elsewhere(blocks[order[number]], block)
    return replace(graph, streams=streams, steps=_sorted(graph, list(chain.from_iterable(lists))))


def _check_shapes(graph: Graph, trunk: Sequence[Unit], moved: Sequence[Unit]) -> None:
    """Each block must give what the next one takes; the first and the last what those in their places do."""
    for before, unit in pairwise(moved):
        gives, takes = graph.streams[before.end].shape, graph.streams[unit.fork].shape
        if gives != takes:
            raise _misfit(f"{_name(unit)} cannot follow {_name(before)}", before, "gives", gives, unit, "takes", takes)
    for here, unit, side, verb in ((trunk[0], moved[0], "fork", "takes"), (trunk[-1], moved[-1], "end", "gives")):
        old, new = graph.streams[getattr(here, side)].shape, graph.streams[getattr(unit, side)].shape
        if old != new:
            raise _misfit(f"{_name(unit)} cannot take the place of {_name(here)}", here, verb, old, unit, verb, new)


def _misfit(
    what: str,
    one: Unit,
    does: str,
    shape: tuple[int | str, ...],
    other: Unit,
    also: str,
    differs: tuple[int | str, ...],
) -> ShapeError:
    shapes = {f"block {one.block.index}": _fixed(shape), f"block {other.block.index}": _fixed(differs)}
    return ShapeError(
        f"reorder: {what}, as their shapes disagree.\n"
        f"  block {one.block.index} {does} {list(shape)}\n"
        f"  block {other.block.index} {also} {list(differs)}\n"
        "  Exchange blocks of one shape.",
        block=str(other.block.index),
        shapes=shapes,
    )


def _fixed(shape: tuple[int | str, ...]) -> tuple[int, ...]:
    """The sizes that are numbers."""
    return tuple(size for size in shape if isinstance(size, int))


def _elsewhere(block: Block, place: Block) -> ValueError:
    return ValueError(
        f"reorder: block {block.index} ({block.name!r}) cannot take the place of block {place.index} ({place.name!r}): "
        "they lie on different trunks, so neither gives what the other reads."
    )


def _name(unit: Unit) -> str:
    return f"block {unit.block.index} ({unit.block.name!r})"


def _sorted(graph: Graph, steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps, each moved down no further than behind what it reads."""
    at_hand, done, waiting = set(graph.inputs), list[Step](), list[Step]()
    for step in steps:
        waiting.append(step)
        while ready := next((s for s in waiting if at_hand.issuperset(reads(s))), None):
            waiting.remove(ready)
            done.append(ready)
            at_hand.update(makes(ready))
    if waiting:
        stuck = waiting[0]
        missing = next(stream for stream in reads(stuck) if stream not in at_hand)
        raise ValueError(
            f"reorder: block {stuck.block} reads {missing!r}, which would be made after it: the two belong together in "
            "this order."
        )
    return tuple(done)

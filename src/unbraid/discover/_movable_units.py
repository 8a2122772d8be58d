"""What moves when a block moves: its unit, from its fork to the next."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import fx

from unbraid.discover._block import Block
from unbraid.graph import Add, Graph, Segment, makes, reads
from unbraid.graph.questions import name_of, shape_only


@dataclass(frozen=True)
class Unit:
    """What moves when a block moves: all between its fork and the next.

    Attributes:
        block: the block.
        fork: the stream at which it begins.
        end: the stream that it hands on: its sum, or what the trunk makes of it before the next fork.
        places: the places of its steps in the graph.
    """

    block: Block
    fork: str
    end: str
    places: tuple[int, ...]


def units(graph: Graph, blocks: Sequence[Block], stream: str) -> list[list[Unit]]:
    """The blocks of each trunk as pieces that can be moved, in the order in which they run.

    One trunk goes on as long as each block's sum reaches the next one's fork by trunk operations alone. What a block
    reads besides (masks, rotary tables, an encoder's output, a table of biases) is no part of it.

    Args:
        graph: the graph.
        blocks: the top-level blocks in the order in which they run.
        stream: what the last block hands to the head.
    """
    adds = {step.block: place for place, step in enumerate(graph.steps) if isinstance(step, Add)}
    forks = {add.block: add.fork for add in graph.adds}
    alive = [block for block in blocks if block.index in adds]  # a deletion can take a whole trunk along
    trunks: list[list[Unit]] = []
    linked = False
    for block, following in zip(alive, [*alive[1:], None], strict=True):
        add = graph.steps[adds[block.index]]
        assert isinstance(add, Add)
        inside = _between(graph, add.fork, [name for _, name in add.operands])
        fork = None if following is None else forks[following.index]
        after = None if fork is None else _after(graph, add.output, fork)
        end = add.output if fork is None else fork
        goes_on = after is not None
        if after is None:
            end, after = _last(graph, add.output, block, stream)
        unit = Unit(block, add.fork, end, (*inside, adds[block.index], *after))
        if linked:
            trunks[-1].append(unit)
        else:
            trunks.append([unit])
        linked = goes_on
    return trunks


def _between(graph: Graph, fork: str, ends: Collection[str]) -> list[int]:
    """The places of the steps on the ways from a stream to others."""
    reached, forward = {fork}, []
    for place, step in enumerate(graph.steps):
        size_only = step.size_only if isinstance(step, Segment) else frozenset()
        if any(stream in reached and stream not in size_only for stream in reads(step)):
            reached.update(makes(step))
            forward.append(place)
    wanted, places = set(ends) - {fork}, []
    for place in reversed(forward):
        if not wanted.isdisjoint(makes(graph.steps[place])):
            wanted.update(stream for stream in reads(graph.steps[place]) if stream in reached and stream != fork)
            places.append(place)
    return places[::-1]


def _after(graph: Graph, total: str, fork: str) -> list[int] | None:
    """The trunk operations from a sum to a fork; None where the way leads elsewhere."""
    if total == fork:
        return []
    between = _between(graph, total, [fork])
    steps = [graph.steps[place] for place in between]
    return between if between and all(isinstance(s, Segment) and s.role == "trunk" for s in steps) else None


def _last(graph: Graph, total: str, block: Block, stream: str) -> tuple[str, list[int]]:
    """Where the last block of a trunk ends: after the operations that are known as its P."""
    if (direct := _after(graph, total, stream)) is not None:
        return stream, direct
    end, places, names = total, list[int](), list[str]()
    while tuple(names) != block.after:
        readers = [place for place, step in enumerate(graph.steps) if end in reads(step)]
        step = graph.steps[readers[0]] if len(readers) == 1 else None
        if not isinstance(step, Segment) or step.role != "trunk" or not isinstance(step.code, fx.GraphModule):
            return total, []
        calls = [node for node in step.code.graph.nodes if node.op == "call_function"]
        names += [name_of(node) for node in calls if not shape_only(node)]
        places.append(readers[0])
        end = step.outputs[0]
    return end, places

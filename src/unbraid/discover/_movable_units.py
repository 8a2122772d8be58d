"""What moves when a block moves: its unit, from its fork to the next."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from torch import fx

from unbraid.discover._block import Block, every_block
from unbraid.graph import Add, Graph, Segment, Step, makes, reads
from unbraid.graph.questions import name_of, shape_only


@dataclass(frozen=True)
class Unit:
    """What moves when a block moves: all between its fork and the next.

    Attributes:
        block: the block.
        fork: the stream at which it begins.
        end: the stream that it hands on: its sum, or what the trunk makes of it before the next fork.
        places: the places of its steps in the graph.
        inward: whether its branches read the fork.
        beside: of each other trunk whose state its branches read, by number, that state, where it is one alone.
        free: whether what its branches compute is theirs alone; else another block computes it as well, and they can
            only move together.
    """

    block: Block
    fork: str
    end: str
    places: tuple[int, ...]
    inward: bool
    beside: Mapping[int, str]
    free: bool


@dataclass(frozen=True)
class _Stretch:
    """A block's way on its trunk: from its fork to the end, and what the trunk does behind the sum."""

    block: Block
    add: Add
    end: str
    after: tuple[int, ...]
    goes_on: bool


def units(graph: Graph, blocks: Sequence[Block], stream: str) -> list[list[Unit]]:
    """The blocks of each trunk as pieces that can be moved, in the order in which they run.

    One trunk goes on as long as each block's sum reaches the next one's fork by trunk operations alone. What a block
    reads besides (masks, rotary tables, an encoder's output, a table of biases) is no part of it; where trunks
    interact, what it reads of another is that one's state.

    Args:
        graph: the graph.
        blocks: the top-level blocks in the order in which they run.
        stream: what the last block hands to the head.
    """
    adds = {step.block: step for step in graph.steps if isinstance(step, Add)}
    alive = [block for block in blocks if block.index in adds]  # a deletion can take a whole trunk along
    runs = list[list[_Stretch]]()
    for number in dict.fromkeys(block.trunk for block in alive):
        chained = [(block, adds[block.index]) for block in alive if block.trunk == number]
        foreign = frozenset(adds[block.index].output for block in alive if block.trunk != number)
        linked = False
        for (block, add), following in zip(chained, [*chained[1:], None], strict=True):
            stretch = _stretch(graph, block, add, None if following is None else following[1].fork, stream, foreign)
            if linked:
                runs[-1].append(stretch)
            else:
                runs.append([stretch])
            linked = stretch.goes_on
    states = [frozenset(chain.from_iterable(map(_states, run))) for run in runs]
    trunks = list[list[Unit]]()
    for number, run in enumerate(runs):
        trunks.append([_unit(graph, stretch, number, states) for stretch in run])
    sequences = list[list[str]]()
    for trunk in trunks:
        sequences.append([trunk[0].fork, *(unit.end for unit in trunk)])
    return [_beside_deleted(graph, trunk, sequences) for trunk in trunks]


def _states(stretch: _Stretch) -> tuple[str, str, str]:
    return stretch.add.fork, stretch.add.output, stretch.end


def _stretch(graph: Graph, block: Block, add: Add, fork: str | None, stream: str, foreign: Collection[str]) -> _Stretch:
    after = None if fork is None else _after(graph, add.output, fork, foreign)
    if fork is not None and after is not None:
        return _Stretch(block, add, fork, tuple(after), True)
    end, places = _last(graph, add.output, block, stream, foreign)
    return _Stretch(block, add, end, tuple(places), False)


def _unit(graph: Graph, stretch: _Stretch, number: int, states: Sequence[frozenset[str]]) -> Unit:
    """A stretch with the steps of its branches and its skip."""
    add = stretch.add
    others = {other: streams for other, streams in enumerate(states) if other != number}
    family = frozenset(block.index for block in every_block([stretch.block]))
    starts = {add.fork}.union(*others.values())
    inside = _between(graph, starts, [name for _, name in add.operands], family)
    branches = [step for step in map(graph.steps.__getitem__, inside) if step.block in family and not _is_skip(step)]
    read = set(chain.from_iterable(map(reads, branches))).union(filter(None, add.branches))
    beside = {other: streams & read for other, streams in others.items()}
    made = starts.union(*(makes(graph.steps[place]) for place in inside))
    return Unit(
        stretch.block,
        add.fork,
        stretch.end,
        (*inside, graph.steps.index(add), *stretch.after),
        add.fork in read,
        {other: next(iter(streams)) for other, streams in beside.items() if len(streams) == 1},
        free=all(branch in made for branch in add.branches if branch in graph.reached),
    )


def _beside_deleted(graph: Graph, run: list[Unit], sequences: Sequence[list[str]]) -> list[Unit]:
    """The units of a trunk; where the branches are gone, with the states that they would read, in step with the rest.

    Deletions and orders commute: whoever comes to such a place reads the other trunk as it is there.
    """
    known = list[tuple[int, int, str]]()
    for place, unit in enumerate(run):
        known += [(place, trunk, state) for trunk, state in unit.beside.items()]
    adds = {add.block: add for add in graph.adds}
    filled = []
    for place, unit in enumerate(run):
        beside = dict(unit.beside)
        for other, trunk, state in known if not any(adds[unit.block.index].branches) else ():
            number = sequences[trunk].index(state) + place - other if state in sequences[trunk] else -1
            if 0 <= number < len(sequences[trunk]):
                beside.setdefault(trunk, sequences[trunk][number])
        filled.append(replace(unit, beside=beside))
    return filled


def _is_skip(step: Step) -> bool:
    return isinstance(step, Segment) and step.role == "skip"


def _between(
    graph: Graph, starts: Collection[str], ends: Collection[str], family: Collection[int] | None = None
) -> list[int]:
    """The places of the steps on the ways from some streams to others; of blocks those of a family alone, if given."""
    reached, forward = set(starts), []
    for place, step in enumerate(graph.steps):
        size_only = step.size_only if isinstance(step, Segment) else frozenset()
        own = family is None or step.block is None or step.block in family
        if own and any(stream in reached and stream not in size_only for stream in reads(step)):
            reached.update(makes(step))
            forward.append(place)
    wanted, places = set(ends).difference(starts), []
    for place in reversed(forward):
        if not wanted.isdisjoint(makes(graph.steps[place])):
            wanted.update(s for s in reads(graph.steps[place]) if s in reached and s not in starts)
            places.append(place)
    return places[::-1]


def _after(graph: Graph, total: str, fork: str, foreign: Collection[str]) -> list[int] | None:
    """The trunk operations from a sum to a fork; None where the way leads elsewhere, or meets another trunk."""
    if total == fork:
        return []
    between = _between(graph, [total], [fork])
    steps = [graph.steps[place] for place in between]
    own = all(isinstance(s, Segment) and s.role == "trunk" and set(s.inputs).isdisjoint(foreign) for s in steps)
    return between if between and own else None


def _last(graph: Graph, total: str, block: Block, stream: str, foreign: Collection[str]) -> tuple[str, list[int]]:
    """Where the last block of a trunk ends: after the operations that are known as its P."""
    if (direct := _after(graph, total, stream, foreign)) is not None:
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

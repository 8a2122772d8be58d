"""What the blocks of each trunk read of their own and of the other trunks, for the equations of a form."""

from collections.abc import Sequence

from unbraid.discover._block import Block
from unbraid.discover._equation import Equation, TrunkReads, written
from unbraid.discover._movable_units import Unit, units
from unbraid.graph import Graph, Segment


def equation(graph: Graph, blocks: Sequence[Block], order: Sequence[int], stream: str) -> Equation:
    """Equations 11.5 and 11.6 of a form; where it has several trunks, with what the blocks of each read.

    Args:
        graph: the graph.
        blocks: the top-level blocks, by index.
        order: their indices in the order in which they run.
        stream: what reaches the head.
    """
    several = len({block.trunk for block in blocks}) > 1
    return written(blocks, _trunk_reads(graph, [blocks[index] for index in order], stream) if several else ())


def _trunk_reads(graph: Graph, blocks: Sequence[Block], stream: str) -> list[TrunkReads]:
    """One entry for each trunk."""
    runs = units(graph, blocks, stream)
    states = list[list[str]]()
    for run in runs:
        states.append([run[0].fork, *(unit.end for unit in run)])
    ends_read = _read_at(graph, stream, {run[-1] for run in states})
    trunks = list[TrunkReads]()
    for number, run in enumerate(runs):
        arguments = [_arguments(run, number, place, states) for place in range(len(run))]
        blocks_of_it = tuple(unit.block.index for unit in run)
        trunks.append(TrunkReads(blocks_of_it, tuple(arguments), states[number][-1] in ends_read))
    return trunks


def _arguments(
    run: Sequence[Unit], number: int, place: int, states: Sequence[Sequence[str]]
) -> tuple[tuple[int, int], ...]:
    """The states that a block's branches read; of two trunks that begin at one stream, that which the others read."""
    unit = run[place]
    shared = unit.fork in unit.beside.values() and not all(other.inward for other in run)
    own = [(number, place)] if unit.inward and not shared else []
    beside = [
        (trunk, states[trunk].index(state))
        for trunk, state in unit.beside.items()
        if state in states[trunk] and not (state == unit.fork and not shared)
    ]
    return tuple(sorted(own + beside)) or ((number, place),)


def _read_at(graph: Graph, stream: str, ends: set[str]) -> set[str]:
    """Which streams the way up from one meets, through what the trunk does."""
    waiting, seen = [stream], set[str]()
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        maker = graph.makers.get(here)
        if here not in ends and isinstance(maker, Segment):
            waiting.extend(maker.inputs)
    return seen & ends

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unbraid.walk._merge import ALONE, Merged

Numbers = NDArray[np.int32]


@dataclass(frozen=True)
class Room:
    """How many nodes may be stacked.

    Attributes:
        run: for each place how many are run at once.
        live: for each place how many may be waiting with their values; beyond that the variants part in two, and one
            part is finished before the other goes on.
    """

    run: Sequence[int]
    live: Sequence[int]


@dataclass(frozen=True, eq=False)
class Schedule:
    """In which order the nodes of merged variants are run, each of them once.

    Attributes:
        groups: the nodes that are run at one time, as one larger batch.
        finished: after each group the variants whose outputs are there; the first entry is before any group.
        last: after each group the values that nobody reads any more, as for `finished`.
    """

    groups: Sequence[Sequence[int]]
    finished: Sequence[Sequence[int]]
    last: Sequence[Sequence[int]]


def schedule(merged: Merged, room: Room) -> Schedule:
    """Order the nodes place by place, all variants together as long as there is room for them.

    Where there is not, the variants part at the node in which they differ: those whose node serves the fewest others
    go first. After deletions these are the ones that cannot part any more, while the one row of the whole model, from
    which the rest has yet to depart, waits. No node is in both parts, so nothing is computed twice.
    """
    groups: list[list[int]] = []
    done = np.zeros(len(merged.nodes), bool)
    waiting = [(np.arange(len(merged.needs), dtype=np.int32), 0)]
    while waiting:
        variants, first = waiting.pop()
        for place in range(first, merged.needs.shape[1]):
            column = merged.needs[variants, place]
            nodes, serves = np.unique(column[column >= 0], return_counts=True)
            if len(nodes) > room.live[place]:
                fewest = nodes[np.argsort(serves, kind="stable")[: room.live[place]]]
                part = np.isin(column, fewest)
                waiting += [(variants[~part], place), (variants[part], place)]
                break
            new = nodes[~done[nodes]]
            groups += _pieces(merged, new, room.run[place])
            done[new] = True
    return Schedule(groups, *_ends(merged, groups))


def _pieces(merged: Merged, nodes: Numbers, room: int) -> Iterator[list[int]]:
    """Nodes of one kind, at most `room` together."""
    kinds: dict[int, list[int]] = {}
    for node in nodes.tolist():
        kind = merged.nodes[node].kind
        kinds.setdefault(kind if kind != ALONE else -2 - node, []).append(node)
    for alike in kinds.values():
        yield from (alike[start : start + room] for start in range(0, len(alike), room))


def _ends(merged: Merged, groups: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """When each variant is finished, and when each value has been read for the last time."""
    turn = np.zeros(len(merged.nodes) + 1, np.int64)  # the last entry, 0, is that of node −1
    last = [-1] * len(merged.dimensions)
    for value in merged.inputs.values():
        last[value] = 0
    for number, group in enumerate(groups, start=1):
        turn[group] = number
        for node in group:
            for value in (*merged.nodes[node].reads, *merged.nodes[node].makes):
                last[value] = number
    finished: list[list[int]] = [[] for _ in range(len(groups) + 1)]
    ends = turn[merged.needs].max(axis=1, initial=0).tolist()
    for variant, end in enumerate(ends):
        finished[end].append(variant)
        for value in merged.outputs[variant]:
            last[value] = max(last[value], end)
    gone: list[list[int]] = [[] for _ in range(len(groups) + 1)]
    for value, number in enumerate(last):
        if number >= 0:  # no variant needs the others
            gone[number].append(value)
    return finished, gone

"""The order in which the nodes of merged variants run: place by place, nodes of one kind as one larger batch.

Of the example in `_merge`, two variants of three blocks, with room for as many nodes as there are:

    groups    [0]  [1]  [2]  [3]  [4, 5]  [6, 7]       f3 runs once, at h2 and h1 as one batch
    finished                               0, 1        variants whose outputs are there
    last                2: values 0, 1    4: 3         after the third node nobody reads x and f1(x) any more, and so on

With room for one node at a place the variants part where they differ, and one is finished before the other goes on:

    groups    [0]  [1]  [2]  [3]  [4]  [6]  [5]  [7]
    finished                           0         1

They part by rows: those that serve the fewest variants are finished first, and the whole model is one row that waits.
Additions take as many rows as the branches before them, where there is room for nearly as many of both
(`_memory_budget`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unbraid.sweep._merge import ALONE, NONE, Merged, Numbers


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

    groups: Sequence[Numbers]
    finished: Sequence[NDArray[np.int64]]
    last: Sequence[NDArray[np.int64]]


def schedule(merged: Merged, room: Room) -> Schedule:
    """Order the nodes place by place, all variants together as long as there is room for them.

    Where there is not, the variants part at the node in which they differ: those whose node serves the fewest others
    go first. After deletions these are the ones that cannot part any more, while the one row of the whole model, from
    which the rest has yet to depart, waits. No node is in both parts, so nothing is computed twice.
    """
    groups: list[Numbers] = []
    done = np.zeros(len(merged.runs), bool)
    waiting = [(np.arange(len(merged.needs), dtype=np.int32), 0)]
    while waiting:
        variants, first = waiting.pop()
        for place in range(first, merged.needs.shape[1]):
            column = merged.needs[variants, place]
            nodes, serves = np.unique(column[column != NONE], return_counts=True)
            if len(nodes) > room.live[place]:
                fewest = nodes[np.argsort(serves, kind="stable")[: room.live[place]]]
                part = np.isin(column, fewest)
                waiting += [(variants[~part], place), (variants[part], place)]
                break
            new = nodes[~done[nodes]]
            groups += _pieces(merged, new, room.run[place])
            done[new] = True
    return Schedule(groups, *_ends(merged, groups))


def _pieces(merged: Merged, nodes: Numbers, room: int) -> Iterator[Numbers]:
    """Nodes of one kind, at most `room` together."""
    kinds = merged.kinds[nodes]
    yield from nodes[kinds == ALONE, None]
    for kind in np.unique(kinds[kinds != ALONE]):
        alike = nodes[kinds == kind]
        yield from (alike[start : start + room] for start in range(0, len(alike), room))


def _ends(merged: Merged, groups: list[Numbers]) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """When each variant is finished, and when each value has been read for the last time."""
    turn = np.zeros(len(merged.runs) + 1, np.int64)  # the last entry, 0, is that of node −1
    for number, group in enumerate(groups, start=1):
        turn[group] = number
    last = np.full(len(merged.dimensions) + 1, NONE, np.int64)  # the last entry is that of value −1
    last[[*merged.inputs.values()]] = 0
    run = np.flatnonzero(turn)
    for values in (*merged.reads[run].T, *merged.makes[run].T):
        np.maximum.at(last, values, turn[run])
    ends = turn[merged.needs].max(axis=1, initial=0)
    for values in merged.outputs.T:
        np.maximum.at(last, values, ends)
    last[-1] = NONE
    return _by_turn(ends, len(groups)), _by_turn(last[:-1], len(groups))


def _by_turn(turns: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """What comes at each turn from 0 to `count`; what comes at none, −1, is left out."""
    order = np.argsort(turns, kind="stable")
    return np.split(order, np.searchsorted(turns[order], np.arange(count + 1)))[1:]

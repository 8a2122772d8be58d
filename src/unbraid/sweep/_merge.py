"""Variants of one graph, laid over one another: equal work is one node, made once for all that need it.

Three blocks, h1 = x + f1(x), h2 = h1 + f2(h1), h3 = h2 + f3(h2), as the whole model and without block 1 (from 0):

    place        0        1         2         3         4         5
    whole        f1(x)    x + ..    f2(h1)    h1 + ..   f3(h2)    h2 + ..
    without 1    f1(x)    x + ..    f2(h1)    = h1      f3(h1)    h1 + ..

Eight nodes instead of eleven steps. A value is a number: 0 is x, and what the nodes make is counted from 1.

    node     runs    reads     makes    kind
    0        f1      0         1        0
    1        sum     0, 1      2        1         h1
    2        f2      2         3        2
    3        sum     2, 3      4        3         h2
    4        f3      4         5        4         f3(h2)
    5        f3      2         6        4         f3(h1): of one kind with 4, as they differ in what they read alone
    6        sum     4, 5      7        5         h3 of the whole
    7        sum     2, 6      8        5         h3 without block 1

    needs    [[0, 1, 2,  3, 4, 6],        the node at each place of each variant; a sum of one operand is that operand,
              [0, 1, 2, -1, 5, 7]]        and needs none
    outputs  [[7], [8]]

Everything is an array, place by place, not an object for each node: for 2^12 subnetworks 12,000 nodes with their tuples
took 50 ms of a sweep of 340 to make, and had Python's collector go over all of torch now and then (200 ms); by arrays
it is 16 ms and no collection.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unbraid.graph import Add, Graph, Step, Stream, makes, reads

_BATCH = re.compile(r"\bbatch\b")
Numbers: TypeAlias = NDArray[np.int32]
ALONE = NONE = -1


@dataclass(frozen=True, eq=False)
class Merged:
    """Variants of one graph, laid over one another: what they share is there once.

    A node is one distinct computation, a step on certain values, made once for all variants that need its results. Two
    steps are the same computation if their code, their parameters and their operands are the same; operands are the
    same if the steps that make them are (hash consing). Nodes, values and variants are rows of arrays, as there may be
    tens of thousands; −1 stands where there is none.

    Attributes:
        graph: the graph that the variants derive from.
        steps: the distinct steps.
        runs: [nodes], which of the steps each node runs.
        reads: [nodes, operands], the number of the value of each operand.
        makes: [nodes, results], the numbers of the values that come out.
        kinds: [nodes]; nodes of one kind can be run as one larger batch; `ALONE` for those that cannot.
        needs: [variants, places], the node at each place of each variant's steps. A variant that lacks a branch still
            lists its nodes where others need them.
        inputs: the number of each input stream's value.
        outputs: [variants, outputs], the numbers of the outputs' values, in the order of the graph's.
        dimensions: [values], the dimension that counts the examples.
    """

    graph: Graph
    steps: Sequence[Step]
    runs: Numbers
    reads: Numbers
    makes: Numbers
    kinds: Numbers
    needs: Numbers
    inputs: Mapping[str, int]
    outputs: Numbers
    dimensions: Numbers

    def step(self, node: SupportsIndex) -> Step:
        """What a node runs."""
        return self.steps[self.runs[node]]


def merge(graph: Graph, variants: Sequence[Sequence[Step]]) -> Merged:
    """Lay variants over one another.

    Args:
        graph: gives the streams, the inputs and the outputs of all variants.
        variants: the steps of each in order of execution; steps without effect on the outputs are left out. Steps that
            stand at one place of their variants can be run together, so what the variants have in common should
            stand at the same places.

    Raises:
        ValueError: a variant reads, or gives as an output, a stream that none of its earlier steps makes.
    """
    steps, columns = _numbered(variants)
    merger = _Merger(graph, steps, len(variants))
    return merger.merged([merger.lay(column) for column in columns])


def dimension(stream: Stream) -> int | None:
    """The one dimension whose size grows with the number of examples; None where there is none, or several."""
    places = [place for place, size in enumerate(stream.shape) if isinstance(size, str) and _BATCH.search(size)]
    return places[0] if len(places) == 1 else None


def _numbered(variants: Sequence[Sequence[Step]]) -> tuple[list[Step], Numbers]:
    """The distinct steps, and which of them each variant has at each place, [places, variants]."""
    every = list(chain.from_iterable(variants))
    ids = np.fromiter(map(id, every), np.int64, len(every))
    first, numbers = _as_met(ids)
    lengths = np.fromiter(map(len, variants), np.int64, len(variants))
    columns = np.full((len(variants), lengths.max(initial=0)), NONE, np.int32)
    columns[np.arange(columns.shape[1]) < lengths[:, None]] = numbers
    return [every[number] for number in first], columns.T


@dataclass(frozen=True, eq=False, slots=True)
class _Nodes:
    """New nodes of one place; none of them reads what another makes.

    Attributes:
        runs: [nodes] as in `Merged`.
        reads: [nodes, operands] as in `Merged`.
        makes: [nodes, results] as in `Merged`.
        kinds: [nodes] as in `Merged`.
    """

    runs: Numbers
    reads: Numbers
    makes: Numbers
    kinds: Numbers


class _Merger:
    """Lays variants over one another place by place, all of them at once."""

    def __init__(self, graph: Graph, steps: Sequence[Step], variants: int) -> None:
        self._graph, self._steps, self._variants = graph, steps, variants
        self.inputs = {stream: number for number, stream in enumerate(graph.inputs)}
        # The number of each stream's value in each variant.
        self._values = {stream: np.full(variants, number, np.int32) for stream, number in self.inputs.items()}
        self._dimensions = self._along(graph.inputs)
        self._new: list[_Nodes] = []
        self._first = np.empty(0, np.int32)  # of what each node makes; the rest follows it
        self._known: dict[bytes, int] = {}  # the node of each code and operands
        self._kinds: dict[tuple[int, ...], int] = {}
        # What each step computes, with what it can be stacked, and between which streams it stands, by numbers.
        self._codes = _numbers(
            [_sum(step) if isinstance(step, Add) else (id(step.code), step.params) for step in steps]
        )
        self._alike = _numbers(
            [(step.block, step.output) if isinstance(step, Add) else (id(step.code), step.params) for step in steps]
        )
        self._between = _numbers([(isinstance(step, Add), reads(step), makes(step)) for step in steps])

    def lay(self, column: Numbers) -> Numbers:
        """The nodes of the variants at one place, given the numbers of their steps."""
        needs = np.full(self._variants, NONE, np.int32)
        between = np.where(column == NONE, NONE, self._between[column])
        for group in np.unique(between[between != NONE]):
            rows = np.flatnonzero(between == group)
            step = self._steps[column[rows[0]]]
            operands = self._taken(reads(step), rows)
            if isinstance(step, Add) and operands.shape[1] == 1 and step.along is None:
                numbers = operands  # a sum of one operand is that operand
            else:
                needs[rows] = nodes = self._nodes(column[rows], operands)
                numbers = self._first[nodes, None] + np.arange(len(makes(step)))
            for stream, values in zip(makes(step), numbers.T, strict=True):
                self._value(stream)[rows] = values
        return needs

    def _taken(self, streams: Sequence[str], rows: NDArray[np.int64]) -> Numbers:
        """The numbers of some streams' values in some variants, [variants, streams]."""
        taken = np.empty((len(rows), len(streams)), np.int32)
        for place, stream in enumerate(streams):
            taken[:, place] = self._value(stream)[rows]
            if (taken[:, place] == NONE).any():
                raise ValueError(f"merge: a variant takes the stream {stream}, which no step before makes.")
        return taken

    def _value(self, stream: str) -> Numbers:
        if stream not in self._values:
            self._values[stream] = np.full(self._variants, NONE, np.int32)
        return self._values[stream]

    def _nodes(self, steps: Numbers, operands: Numbers) -> Numbers:
        """The node of each row, a step with its operands; made where there is none yet."""
        rows = np.column_stack([self._codes[steps], operands])
        first, which = _distinct(rows)
        keys = rows[first].view(f"V{rows.itemsize * rows.shape[1]}").ravel().tolist()
        nodes = np.array([self._known.get(key, NONE) for key in keys], np.int32)
        new = np.flatnonzero(nodes == NONE)
        if len(new):
            nodes[new] = self._add_nodes(steps[first[new]], operands[first[new]])
            self._known.update(zip(keys, nodes.tolist(), strict=True))
        return nodes[which]

    def _add_nodes(self, steps: Numbers, operands: Numbers) -> Numbers:
        """New nodes, one for each row; their steps make the same streams."""
        along = self._along(makes(self._steps[steps[0]]))
        first, count = len(self._dimensions), len(along) * len(steps)
        results = np.arange(first, first + count, dtype=np.int32).reshape(len(steps), len(along))
        self._new.append(_Nodes(steps, operands, results, self._kinds_of(steps, operands, along)))
        self._dimensions = np.concatenate([self._dimensions, np.tile(along, len(steps))])
        self._first = np.concatenate([self._first, results[:, 0]])
        return np.arange(len(self._first) - len(steps), len(self._first), dtype=np.int32)

    def _kinds_of(self, steps: Numbers, operands: Numbers, along: Numbers) -> Numbers:
        """Nodes can be stacked if they differ in nothing but values with examples along a dimension."""
        places = self._dimensions[operands]
        alike = np.column_stack([self._alike[steps], places, np.where(places == NONE, operands, NONE)])
        first, which = _distinct(alike + 1)
        kinds = [
            ALONE
            if (along == NONE).any() or (places[row] == NONE).all()
            else self._kinds.setdefault(tuple(alike[row].tolist()), len(self._kinds))
            for row in first.tolist()
        ]
        return np.array(kinds, np.int32)[which]

    def _along(self, streams: Sequence[str]) -> Numbers:
        dimensions = (dimension(self._graph.streams[stream]) for stream in streams)
        return np.array([NONE if along is None else along for along in dimensions], np.int32)

    def merged(self, needs: Sequence[Numbers]) -> Merged:
        """All variants, without the nodes on which no output depends."""
        outputs = self._taken(self._graph.outputs, np.arange(self._variants))
        wanted = np.zeros(len(self._dimensions), bool)
        wanted[outputs] = True
        alive: list[NDArray[np.bool_]] = []
        for new in reversed(self._new):  # a node reads what earlier ones make
            alive.append(np.any(wanted[new.makes], axis=1))
            wanted[new.reads[alive[-1]]] = True
        serves = np.concatenate([*reversed(alive), [False]])  # the last entry is that of node −1
        nodes = np.stack(needs, 1) if needs else np.empty((self._variants, 0), np.int32)
        return Merged(
            self._graph,
            self._steps,
            np.concatenate([np.empty(0, np.int32), *(new.runs for new in self._new)]),
            _one_below_another([new.reads for new in self._new]),
            _one_below_another([new.makes for new in self._new]),
            np.concatenate([np.empty(0, np.int32), *(new.kinds for new in self._new)]),
            np.where(serves[nodes], nodes, NONE),
            self.inputs,
            outputs,
            self._dimensions,
        )


def _sum(add: Add) -> object:
    """What an addition computes of its operands: of a concatenation it matters which of them are there, and where."""
    return "sum" if add.along is None else (add.along, add.spans, tuple(operand for operand, _ in add.operands))


def _numbers(keys: Sequence[object]) -> Numbers:
    """A number for each key, the same for equal ones."""
    known: dict[object, int] = {}
    return np.array([known.setdefault(key, len(known)) for key in keys], np.int32)


def _distinct(rows: Numbers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each distinct row is met first, in that order, and which of them each row is."""
    key = np.zeros(len(rows), np.int64)
    differ = (rows != rows[:1]).any(axis=0)
    for column in rows.T[differ]:
        key = (np.unique(key, return_inverse=True)[1] if key.any() else key) * (int(column.max()) + 1) + column
    return _as_met(key) if differ.any() else (np.arange(min(len(rows), 1)), key)


def _as_met(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each distinct key is met first, in that order, and which of them each key is."""
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[which]


def _one_below_another(blocks: Sequence[Numbers]) -> Numbers:
    """Rows of several widths as one array, −1 where a row has ended."""
    stacked = np.full((sum(map(len, blocks)), max((block.shape[1] for block in blocks), default=0)), NONE, np.int32)
    start = 0
    for block in blocks:
        stacked[start : start + len(block), : block.shape[1]] = block
        start += len(block)
    return stacked

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unbraid.graph import Add, Graph, Step, Stream, makes, reads

_BATCH = re.compile(r"\bbatch\b")
ALONE = -1


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One distinct computation: a step on certain values, made once for all variants that need its results.

    Attributes:
        step: what is computed.
        reads: the number of the value of each operand.
        makes: the numbers of the values that come out.
        kind: nodes of one kind can be run as one larger batch; `ALONE` for those that cannot.
    """

    step: Step
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    kind: int


@dataclass(frozen=True, eq=False)
class Merged:
    """Variants of one graph, laid over one another: what they share is there once.

    Two steps are the same computation if their code, their parameters and their operands are the same; operands are
    the same if the steps that make them are (hash consing).

    Attributes:
        graph: the graph that the variants derive from.
        nodes: the distinct computations.
        needs: [variants, places], the node at each place of each variant's steps; −1 where there is none. A variant
            that lacks a branch still lists its nodes where others need them.
        inputs: the number of each input stream's value.
        outputs: for each variant the numbers of its outputs' values, in the order of the graph's.
        dimensions: for each value the dimension that counts the examples; None where there is none.
    """

    graph: Graph
    nodes: Sequence[Node]
    needs: NDArray[np.int32]
    inputs: Mapping[str, int]
    outputs: Sequence[tuple[int, ...]]
    dimensions: Sequence[int | None]


def merge(graph: Graph, variants: Sequence[Sequence[Step]]) -> Merged:
    """Lay variants over one another.

    Args:
        graph: gives the streams, the inputs and the outputs of all variants.
        variants: the steps of each in order of execution; steps without effect on the outputs are left out. Steps that
            stand at one place of their variants can be run together, so what the variants have in common should
            stand at the same places.
    """
    merger = _Merger(graph, np.full((len(variants), max(map(len, variants), default=0)), -1, np.int32))
    for number, steps in enumerate(variants):
        merger.lay(number, steps)
    return merger.merged()


def dimension(stream: Stream) -> int | None:
    """The one dimension whose size grows with the number of examples; None where there is none, or several."""
    found = [place for place, size in enumerate(stream.shape) if isinstance(size, str) and _BATCH.search(size)]
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True, eq=False, slots=True)
class _Part:
    """What a step reads and makes, looked up once: many variants have the step."""

    reads: tuple[str, ...]
    makes: tuple[str, ...]
    adds: bool
    code: tuple[object, ...]
    along: tuple[int | None, ...]


@dataclass(eq=False)
class _Merger:
    graph: Graph
    needs: NDArray[np.int32]
    nodes: list[Node] = field(default_factory=list)
    known: dict[tuple[object, ...], int] = field(default_factory=dict)
    kinds: dict[tuple[object, ...], int] = field(default_factory=dict)
    outputs: list[tuple[int, ...]] = field(default_factory=list)
    parts: dict[int, _Part] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.along = {name: dimension(stream) for name, stream in self.graph.streams.items()}
        self.inputs = {stream: number for number, stream in enumerate(self.graph.inputs)}
        self.dimensions = [self.along[stream] for stream in self.graph.inputs]
        self.values = dict(self.inputs)
        self.run: list[int] = []
        self.before: Sequence[Step] = ()

    def lay(self, variant: int, steps: Sequence[Step]) -> None:
        """Add one variant; what it has in common with the one before, from the beginning, is known already."""
        values, run = self.values, self.run
        common = next((n for n, (a, b) in enumerate(zip(steps, self.before, strict=False)) if a is not b), None)
        common = min(len(steps), len(self.before)) if common is None else common
        del run[common:]
        self.before = steps
        for step in steps[common:]:
            found = self.parts.get(id(step)) or self._part(step)
            operands = tuple([values[stream] for stream in found.reads])
            if len(operands) == 1 and found.adds:
                values[found.makes[0]] = operands[0]  # a sum of one operand is that operand
                run.append(-1)
                continue
            number = self._node(step, found, operands)
            values.update(zip(found.makes, self.nodes[number].makes, strict=True))
            run.append(number)
        self.outputs.append(tuple([values[stream] for stream in self.graph.outputs]))
        self.needs[variant, : len(run)] = run

    def _part(self, step: Step) -> _Part:
        adds = isinstance(step, Add)
        code = (step.block, step.output) if isinstance(step, Add) else (id(step.code), step.params)
        made = tuple(self.along[stream] for stream in makes(step))
        self.parts[id(step)] = found = _Part(reads(step), makes(step), adds, code, made)
        return found

    def _node(self, step: Step, found: _Part, operands: tuple[int, ...]) -> int:
        key = operands if found.adds else (found.code, operands)
        number = self.known.get(key)
        if number is None:
            number = self.known[key] = len(self.nodes)
            first = len(self.dimensions)
            self.dimensions += found.along
            made = tuple(range(first, len(self.dimensions)))
            self.nodes.append(Node(step, operands, made, self._kind(found, operands)))
        return number

    def _kind(self, found: _Part, operands: tuple[int, ...]) -> int:
        """Nodes can be stacked if they differ in nothing but values with examples along a dimension."""
        along = tuple([self.dimensions[value] for value in operands])
        if None in found.along or all(place is None for place in along):
            return ALONE
        shared: tuple[int | None, ...] = ()
        if None in along:
            shared = tuple(value if place is None else None for value, place in zip(operands, along, strict=True))
        return self.kinds.setdefault((found.code, along, shared), len(self.kinds))

    def merged(self) -> Merged:
        """All variants, without the nodes on which no output depends."""
        wanted = [False] * len(self.dimensions)
        for outputs in self.outputs:
            for value in outputs:
                wanted[value] = True
        alive = np.zeros(len(self.nodes) + 1, bool)  # the last entry is that of node −1
        for number in range(len(self.nodes) - 1, -1, -1):  # a node reads what earlier ones make
            node = self.nodes[number]
            if any(wanted[value] for value in node.makes):
                alive[number] = True
                for value in node.reads:
                    wanted[value] = True
        self.needs[~alive[self.needs]] = -1
        return Merged(self.graph, self.nodes, self.needs, self.inputs, self.outputs, self.dimensions)

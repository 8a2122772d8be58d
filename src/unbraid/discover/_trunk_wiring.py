"""Who writes to a model's trunks, and who reads them: the ends of its edges.

A form is three kinds of steps. The *trunk* is the additions of top-level blocks, and the segments of trunk and skips
between them; *regions* are all the rest, the branches. Cut apart, with every branch's output given:

    h1 = h0 + b1,  h2 = P(h1) + b2,  y = head(h2)        the trunk, a graph from sources and b1, b2 to all that is read
    b1 = f1(h0),   b2 = f2(P(h1))                        a region each, from what it reads to what it writes

    writer     what it writes              reader     what it reads
    input      what is there first, h0     f1         h0
    f1         b1                          f2         P(h1)
    f2         b2                          head       all that leads to the outputs by the trunk alone

What the trunk does behind the last sum, a last ReLU or norm, belongs to the head. Nothing here looks at how trunks run:
a branch may read another trunk at any point, or what another branch has written before it was added. An edge i → j is
there where the trunk leads from what i writes to what j reads.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

from unbraid.discover._block import Block, every_block
from unbraid.graph import SKIP, Add, Graph, Segment, Step, makes, needed, reads

INPUT, CONSTANTS, HEAD = "input", "constants", "head"


@dataclass(frozen=True)
class Writer:
    """What writes to the trunks.

    Attributes:
        name: "input", a block's name, or a branch's.
        streams: what it writes: what is there before any block, or the outputs of branches.
    """

    name: str
    streams: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Reader:
    """What reads the trunks.

    Attributes:
        name: a block's name, a branch's, or "head".
        block: the block's index; None for the head.
        steps: what computes that from what it reads.
        entries: the streams that it reads, as far as the trunk makes them or a writer writes them.
        streams: what it computes: the outputs of branches and the gates of a skip; of the head the graph's outputs.
    """

    name: str
    block: int | None
    steps: tuple[Step, ...]
    entries: tuple[str, ...]
    streams: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Wiring:
    """The writers and readers of a form, and the trunk that lies between them.

    Attributes:
        graph: the form's graph, or one that ends in a target behind it.
        blocks: its top-level blocks.
        by_branch: whether each branch is a writer and a reader of its own, not each block.
        nested: whether blocks inside branches write and read in the place of those around them, whose branches are
            then a part of the trunk.
    """

    graph: Graph
    blocks: tuple[Block, ...]
    by_branch: bool = False
    nested: bool = False

    @cached_property
    def adds(self) -> tuple[Add, ...]:
        """The additions of blocks that write and read, as far as a branch is left of them, in order of execution."""
        return tuple(add for add in self.graph.adds if add.block in self._counted and any(add.branches))

    @cached_property
    def _opened(self) -> frozenset[int]:
        """The blocks whose branches are a part of the trunk."""
        return frozenset(block.index for block in every_block(self.blocks) if block.nested and self.nested)

    @cached_property
    def _counted(self) -> frozenset[int]:
        blocks = every_block(self.blocks) if self.nested else self.blocks
        return frozenset(block.index for block in blocks) - self._opened

    @cached_property
    def writers(self) -> tuple[Writer, ...]:
        """The input, and the blocks or their branches."""
        return (Writer(INPUT, self.inputs), *(Writer(name, streams) for name, _, streams in self._parts))

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """What the input writes: what is read before any block has added to it, the first forks above all."""
        forks, behind, read = {add.fork for add in self.adds}, set[str](), dict[str, None]()
        there = {*self.graph.inputs, *chain.from_iterable(map(makes, self._on_trunk))} - self._operands
        for step in self._trunk_steps:
            if isinstance(step, Add) or not (forks | behind).isdisjoint(reads(step)):
                behind.update(makes(step))
                read |= dict.fromkeys(_data(self.graph, step))
        read |= dict.fromkeys(chain.from_iterable(reader.entries for reader in self.readers))
        return tuple(s for s in read if s in self.graph.carried and s in there and s not in behind)

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        """The blocks or their branches, and the head."""
        return (*(reader for reader in self._branches if reader.entries), self._head)

    @cached_property
    def edges(self) -> frozenset[tuple[str, str]]:
        """(writer, reader) by name, wherever the trunk leads from what one writes to what the other reads."""
        pairs = set[tuple[str, str]]()
        for writer in self.writers:
            reached = set(writer.streams)
            for step in self.trunk.steps:
                if not reached.isdisjoint(_data(self.graph, step)):
                    reached.update(makes(step))
            pairs.update((writer.name, r.name) for r in self.readers if not reached.isdisjoint(r.entries))
        return frozenset(pairs)

    @cached_property
    def written(self) -> frozenset[str]:
        """All that writers write."""
        return frozenset(chain.from_iterable(writer.streams for writer in self.writers))

    @cached_property
    def trunk(self) -> Graph:
        """The additions and segments of trunks and skips: from what is written to all that is read."""
        wanted = tuple(dict.fromkeys(chain.from_iterable(reader.entries for reader in self.readers)))
        behind = tuple(step for step in self._trunk_steps if self.written.isdisjoint(makes(step)))
        return part_of(self.graph, needed(behind, wanted), wanted)

    @cached_property
    def plain(self) -> bool:
        """Whether nothing but additions lies behind what is written: a trunk of identities."""
        behind = set(self.written)
        for step in self.trunk.steps:
            if not behind.isdisjoint(reads(step)):
                if isinstance(step, Segment):
                    return False
                behind.update(makes(step))
        return True

    @cached_property
    def _on_trunk(self) -> tuple[Step, ...]:
        """The steps of trunks, skips and head."""
        return tuple(step for step in self.graph.steps if self._lies_between(step))

    def _lies_between(self, step: Step) -> bool:
        if isinstance(step, Add):
            return step.block in self._counted | self._opened
        if step.role == "branch":
            return step.block in self._opened
        return step.block is None or step.block in self._counted | self._opened

    @cached_property
    def _trunk_steps(self) -> tuple[Step, ...]:
        """Those that lead to a block: what is left is the head."""
        read = chain.from_iterable(reader.entries for reader in self._branches)
        return needed(self._on_trunk, (*read, *(add.output for add in self.adds)))

    @cached_property
    def _branches(self) -> tuple[Reader, ...]:
        readers, gates = list[Reader](), self._gates
        for name, block, streams in self._parts:  # a skip's gates go with the first branch, as their derivative does
            readers.append(self._reader(name, block, (*streams, *gates.pop(block, ()))))
        return tuple(readers)

    @property
    def _gates(self) -> dict[int, list[str]]:
        """What the trunk reads of what a block computes besides its branches: the gates of its skip."""
        read = set(chain.from_iterable(map(reads, self._on_trunk))) - self._operands
        on_trunk, gates = set(map(id, self._on_trunk)), dict[int, list[str]]()
        for step in self.graph.steps:
            if id(step) not in on_trunk and step.block is not None:
                computed = [stream for stream in makes(step) if stream in read]
                gates.setdefault(self._around(step.block), []).extend(computed)
        return gates

    def _around(self, block: int) -> int:
        """The block that writes and reads in the place of one inside it."""
        while block not in self._counted and (parent := every_block(self.blocks)[block].parent) is not None:
            block = parent[0]
        return block

    @property
    def _head(self) -> Reader:
        on_trunk = set(map(id, self._trunk_steps))
        steps = needed(tuple(step for step in self._on_trunk if id(step) not in on_trunk), self.graph.outputs)
        return Reader(HEAD, None, steps, _entries(self.graph, steps, self.graph.outputs), self.graph.outputs)

    @cached_property
    def _parts(self) -> list[tuple[str, int, tuple[str, ...]]]:
        """The name, the block and the streams of each writer and reader but input and head."""
        parts = list[tuple[str, int, tuple[str, ...]]]()
        for add in self.adds:
            block = every_block(self.blocks)[add.block]
            alive = [(operand, stream) for operand, stream in add.operands if operand != SKIP]
            if self.by_branch and len(add.branches) > 1:
                parts += [(block.branches[operand], block.index, (stream,)) for operand, stream in alive]
            else:
                parts.append((block.name, block.index, tuple(stream for _, stream in alive)))
        return parts

    def _reader(self, name: str, block: int, streams: tuple[str, ...]) -> Reader:
        """What computes some streams, as far as the trunk, or what other branches have written."""
        on_trunk, others = set(map(id, self._on_trunk)), self._operands - set(streams)
        wanted, steps = set(streams), list[Step]()
        for step in reversed(self.graph.steps):
            if id(step) not in on_trunk and not wanted.isdisjoint(makes(step)):
                steps.append(step)
                wanted.update(stream for stream in reads(step) if stream not in others)
        inside = tuple(reversed(steps))
        return Reader(name, block, inside, _entries(self.graph, inside, streams), streams)

    @cached_property
    def _operands(self) -> frozenset[str]:
        """The outputs of all branches."""
        return frozenset(chain.from_iterable(streams for _, _, streams in self._parts))


def part_of(graph: Graph, steps: tuple[Step, ...], outputs: tuple[str, ...]) -> Graph:
    """Some steps as a graph of their own, from whatever they read; what of it carries data are its sources."""
    inside = set(chain.from_iterable(map(makes, steps)))
    read = dict.fromkeys((*chain.from_iterable(map(reads, steps)), *outputs))
    given = tuple(stream for stream in read if stream not in inside)
    there = {*given, *inside}
    sources = dict.fromkeys((*graph.sources, *(stream for stream in given if stream in graph.carried)))
    return replace(graph, steps=steps, inputs=given, sources=tuple(s for s in sources if s in there), outputs=outputs)


def _entries(graph: Graph, steps: Sequence[Step], outputs: Sequence[str]) -> tuple[str, ...]:
    """What some steps read as data from others, on the way to some outputs; of these those that none of them makes."""
    wanted = dict.fromkeys(outputs)
    for step in reversed(steps):
        if not wanted.keys().isdisjoint(makes(step)):
            wanted |= dict.fromkeys(_data(graph, step))
    inside = set(chain.from_iterable(map(makes, steps)))
    return tuple(stream for stream in wanted if stream not in inside and stream in graph.carried)


def _data(graph: Graph, step: Step) -> Iterable[str]:
    """What a step reads as data, not for its sizes alone."""
    if isinstance(step, Add):
        return reads(step)
    return (stream for stream in step.inputs if stream in graph.carried and stream not in step.size_only)

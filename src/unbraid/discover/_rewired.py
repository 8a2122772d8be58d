"""A graph in which readers hear some writers as they are, and others' values replaced: what runs a circuit.

    h1 = h0 + f1(h0),  h2 = h1 + f2(h1),  y = head(h2)         without the edges f1 → f2 and input → head:

    h1 = h0 + b1                                               h1' = h0 + b1*      what f2 reads
    h2 = h1 + f2(h1')                                          h2' = h0* + b1,  h2'' = h2' + b2      what the head reads

Each reader that lacks an edge has the trunk to itself, as far as what is replaced reaches; writers write once.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import chain

from unbraid.discover._trunk_wiring import Reader, Wiring
from unbraid.graph import Add, Graph, Step, makes, needed, reads, rewired
from unbraid.graph.edits import renamed


def rewire(
    wiring: Wiring, graph: Graph, kept: Collection[tuple[str, str]], instead: Mapping[str, str]
) -> tuple[Graph, Mapping[str, str]]:
    """The graph in which each reader hears the kept edges, and what takes the place of all others.

    Args:
        wiring: the writers, readers and trunk.
        graph: theirs, and steps that make what takes the place of what is written.
        kept: (writer, reader) by name.
        instead: the stream that takes the place of each written one.

    Returns:
        The graph, and what the head reads in the place of streams of the trunk.
    """
    return _Rewiring(wiring, graph, kept, instead).graph()


class _Rewiring:
    """The steps as they are written anew, one after the other."""

    def __init__(
        self, wiring: Wiring, graph: Graph, kept: Collection[tuple[str, str]], instead: Mapping[str, str]
    ) -> None:
        self._wiring, self._graph, self._kept, self._instead = wiring, graph, kept, instead
        self._missing = {reader.name: self._replaced(reader) for reader in wiring.readers}
        # What steps read in the place of a stream, once a reader has written it anew.
        self._live: dict[str, str] = {}
        self._heard: dict[str, Mapping[str, str]] = {}
        self._forks: dict[int, str] = {}  # what a block reads, whoever hears its sum
        self._streams = dict(graph.streams)

    def graph(self) -> tuple[Graph, Mapping[str, str]]:
        graph, head = self._graph, self._wiring.readers[-1]
        waiting = [reader for reader in self._wiring.readers[:-1] if self._missing[reader.name]]
        anew = bool(self._missing[head.name])
        of_head = set(map(id, head.steps)) if anew else set[int]()
        ends = [stream for stream in head.entries if anew and stream in graph.outputs]
        aside = {stream: self._named(stream, "on the trunk") for stream in ends}
        on_trunk, steps = set(map(id, self._wiring.trunk.steps)), list[Step]()
        for step in graph.steps:
            for reader in [reader for reader in waiting if id(step) in on_trunk and _serves(reader, step)]:
                steps += self._reading(reader)
                waiting.remove(reader)
            if id(step) not in of_head:
                steps.append(self._forked(renamed(step, self._live, {s: aside.get(s, s) for s in makes(step)})))
                self._live |= {s: aside[s] for s in makes(step) if s in aside}
        if anew:
            steps += self._reading(head)
        return rewired(replace(graph, streams=self._streams), tuple(steps)), self._heard.get(head.name, {})

    def _replaced(self, reader: Reader) -> frozenset[str]:
        """What a reader hears replaced."""
        edges = self._wiring.edges
        writers = (w for w in self._wiring.writers if (w.name, reader.name) in edges)
        missing = (w.streams for w in writers if (w.name, reader.name) not in self._kept)
        return frozenset(chain.from_iterable(missing))

    def _reading(self, reader: Reader) -> Iterator[Step]:
        """The trunk as a reader hears it, and the reader on it; from then on what it writes is read anew."""
        missing, title = self._missing[reader.name], f"as {reader.name} reads it"
        heard = {stream: self._instead[stream] for stream in missing}
        route = needed(self._wiring.trunk.steps, reader.entries)
        for step in route:
            if heard.keys().isdisjoint(reads(step)):
                continue
            heard |= {stream: self._named(stream, title) for stream in makes(step)}
            yield self._forked(renamed(step, {**self._live, **heard}, heard))
        self._heard[reader.name] = heard
        written = reader.block is not None
        anew = {**self._live, **{stream: heard[stream] for stream in reader.entries if stream in heard}}
        for step in reader.steps:
            outputs = {s: self._named(s, title) if written or s not in reader.streams else s for s in makes(step)}
            yield renamed(step, anew, outputs)
            anew |= outputs
        if reader.block is not None:
            fork = next(add.fork for add in self._wiring.adds if add.block == reader.block)
            self._forks[reader.block] = anew.get(fork, fork)
            self._live |= {stream: anew[stream] for stream in reader.streams if stream in anew}
        else:
            for stream in reader.streams:
                if stream in reader.entries:
                    source = anew.get(stream, stream)
                    yield Add(block=-1, fork=source, skip=source, branches=(), output=stream)

    def _forked(self, step: Step) -> Step:
        """An addition with the fork that its block reads."""
        if not isinstance(step, Add):
            return step
        return replace(step, fork=self._forks.get(step.block, step.fork))

    def _named(self, stream: str, title: str) -> str:
        name = f"{stream} {title}"
        self._streams[name] = replace(self._wiring.graph.streams[stream], id=name)
        return name


def _serves(reader: Reader, step: Step) -> bool:
    """Whether a step of the trunk takes up what a reader writes, be it a gate of its skip."""
    return not set(reader.streams).isdisjoint(reads(step))

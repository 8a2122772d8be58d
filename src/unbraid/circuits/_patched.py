"""Edges run one by one: path patching (Wang et al. 2023), with all that edges have in common run once.

For a reader j everything before it is known from the clean run. A variant for each writer i: the trunk up to what j
reads is run anew with what i writes replaced, j runs on that, and all that depends on j after it:

    three blocks on a plain trunk, edge f1 → f3       h1' = h0 + b1',  h2' = h1' + b2,  b3' = f3(h2')
                                                      h3 = h2 + b3',  y = head(h3)

The variants of one reader have the same steps at the same places, so `sweep` runs them as one larger batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from unbraid.circuits._effects import Effects, Intervention, table_of
from unbraid.discover.wiring import Reader, Wiring, Writer
from unbraid.graph import Add, Graph, Step, makes, needed, reads
from unbraid.graph.edits import renamed
from unbraid.sweep import dimension, together
from unbraid.walk import run


def patched(asked: Intervention) -> Effects:
    """The effect of each edge, by running it.

    Args:
        asked: the form, its inputs, and what is replaced by what.
    """
    form, wiring = asked.form, asked.wiring
    with torch.no_grad():
        every = {*form.graph.inputs, *chain.from_iterable(map(makes, form.graph.steps))}
        clean = run(form.graph, form.state, asked.given, keep=every)
        target = asked.function({stream: clean[stream] for stream in form.graph.outputs})
        size = _examples(form.graph, asked.given)
        columns = [_column(asked, Patch(wiring, reader), clean, target, size) for reader in wiring.readers]
    names = tuple(w.name for w in wiring.writers), tuple(r.name for r in wiring.readers)
    unknown = torch.full((len(wiring.readers),), torch.nan, dtype=target.dtype, device=target.device)
    return Effects(*names, table_of(columns, target), target, 0.0, unknown, len(target) == 1 < size)


def _examples(graph: Graph, given: Mapping[str, Any]) -> int:
    for stream, value in given.items():
        along = dimension(graph.streams[stream]) if stream in graph.streams else None
        if along is not None and isinstance(value, Tensor):
            return value.shape[along]
    return 1


def _column(
    asked: Intervention, patch: "Patch", clean: Mapping[str, Any], target: Tensor, size: int
) -> list[Tensor | None]:
    """The effect of each writer's edge to one reader; None where there is none."""
    wiring = asked.wiring
    column: list[Tensor | None] = [None] * len(wiring.writers)
    edges = [place for place, writer in enumerate(wiring.writers) if patch.hears(writer)]
    variants = [patch.steps(wiring.writers[place]) for place in edges]
    if not variants:
        return column
    graph = patch.graph(variants)
    values = {stream: _value(stream, clean, asked.instead) for stream in graph.inputs}
    for variant, outputs in together(asked.form, graph, variants, values, size):
        returned = dict(zip(asked.form.graph.outputs, map(outputs.__getitem__, graph.outputs), strict=True))
        column[edges[variant]] = asked.function(returned) - target
    return column


_INSTEAD = "in the place of "


def _value(stream: str, clean: Mapping[str, Any], instead: Mapping[str, Tensor]) -> Any:
    return instead[stream.removeprefix(_INSTEAD)] if stream.startswith(_INSTEAD) else clean[stream]


@dataclass(frozen=True, eq=False)
class Patch:
    """The variants in which one reader hears another value of one writer.

    Attributes:
        wiring: writers, readers and trunk.
        reader: the reader.
    """

    wiring: Wiring
    reader: Reader

    def hears(self, writer: Writer) -> bool:
        """Whether there is an edge."""
        return (writer.name, self.reader.name) in self.wiring.edges

    def steps(self, writer: Writer) -> tuple[Step, ...]:
        """The steps of one variant: the trunk anew, the reader on it, and all that depends on the reader."""
        touched = self._touched(writer)
        steps = list[Step]()
        for step in self._route:
            if touched.isdisjoint(makes(step)):
                steps += [_same(stream, self._anew(stream)) for stream in makes(step)]
            else:
                heard = {s: self._heard(s, writer, touched) for s in reads(step)}
                steps.append(renamed(step, heard, {s: self._anew(s) for s in makes(step)}))
        for stream in self._read_as_written:
            source = _INSTEAD + stream if stream in writer.streams else stream
            steps.append(_same(source, self._anew(stream)))
        return (*steps, *self._behind)

    def graph(self, variants: Sequence[tuple[Step, ...]]) -> Graph:
        """The graph of the variants: what they read of the clean run, or in its place, is given."""
        graph, steps = self.wiring.graph, list(chain.from_iterable(variants))
        made = set(chain.from_iterable(map(makes, steps)))
        read = dict.fromkeys((*chain.from_iterable(map(reads, steps)), *self._outputs))
        given = tuple(stream for stream in read if stream not in made)
        new = {s: replace(graph.streams[self._origin(s)], id=s) for s in (*made, *given) if s not in graph.streams}
        return Graph({**graph.streams, **new}, variants[0], given, (), self._outputs)

    @cached_property
    def _route(self) -> tuple[Step, ...]:
        """The steps of the trunk between any writer and what is read."""
        reached, route = set(self.wiring.written), list[Step]()
        for step in needed(self.wiring.trunk.steps, self.reader.entries):
            if not reached.isdisjoint(reads(step)):
                reached.update(makes(step))
                route.append(step)
        return tuple(route)

    @cached_property
    def _read_as_written(self) -> tuple[str, ...]:
        """What is read of a writer's own, not of the trunk."""
        return tuple(stream for stream in self.reader.entries if stream in self.wiring.written)

    @cached_property
    def _behind(self) -> tuple[Step, ...]:
        """The reader, and all that depends on it."""
        made = set(chain.from_iterable(map(makes, self.reader.steps)))
        anew = {s: self._anew(s) for s in (*self._on_route, *self._read_as_written)}
        anew |= {stream: self._anew(stream) for stream in made if stream not in self.reader.streams}
        inside = [renamed(s, anew, {m: anew.get(m, m) for m in makes(s)}) for s in self.reader.steps]
        if self.reader.block is None:
            return tuple(inside)
        moved = {stream: anew[stream] for stream in self.reader.streams if stream not in made and stream in anew}
        changed, after = set(self.reader.streams) & made, list[Step]()
        own = {id(step) for step in self.reader.steps}
        for step in self.wiring.graph.steps:
            mine = (
                isinstance(step, Add) and step.block == self.reader.block and not moved.keys().isdisjoint(reads(step))
            )
            if id(step) not in own and (mine or not changed.isdisjoint(reads(step))):
                after.append(renamed(step, moved if mine else {}, {}))
                changed.update(makes(step))
        return (*inside, *after)

    @cached_property
    def _outputs(self) -> tuple[str, ...]:
        if self.reader.block is not None:
            return self.wiring.graph.outputs
        made = set(chain.from_iterable(map(makes, self.reader.steps)))
        read = {*self._on_route, *self._read_as_written}
        return tuple(self._anew(s) if s not in made and s in read else s for s in self.wiring.graph.outputs)

    @cached_property
    def _on_route(self) -> frozenset[str]:
        return frozenset(chain.from_iterable(map(makes, self._route)))

    def _touched(self, writer: Writer) -> frozenset[str]:
        """What a writer's streams change on the route, themselves included."""
        touched = set(writer.streams)
        for step in self._route:
            if not touched.isdisjoint(reads(step)):
                touched.update(makes(step))
        return frozenset(touched)

    def _heard(self, stream: str, writer: Writer, touched: frozenset[str]) -> str:
        if stream in writer.streams:
            return _INSTEAD + stream
        return self._anew(stream) if stream in touched else stream

    def _anew(self, stream: str) -> str:
        return f"{stream} as {self.reader.name} reads it"

    def _origin(self, stream: str) -> str:
        return stream.removeprefix(_INSTEAD).removesuffix(f" as {self.reader.name} reads it")


def _same(stream: str, name: str) -> Add:
    """A stream under another name: a sum of one operand, for which nothing is run."""
    return Add(block=-1, fork=stream, skip=stream, branches=(), output=name)

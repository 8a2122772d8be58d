"""Edge attribution: the derivative of replacing an edge, ⟨change of what i writes, gradient at i by way of j⟩ (EAP).

With `steps` the gradients are averaged along the line from the clean sources to the corrupt ones (EAP-IG, Hanna et al.
2024), at s + (k/n)(s' − s), k = 0 to n − 1: one step is the derivative at the clean input.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unbraid.circuits._effects import Effects, Intervention, averaged, table_of
from unbraid.circuits._pull import Pull, Pulled
from unbraid.discover.wiring import Writer
from unbraid.form import Linearised
from unbraid.graph import subgraph
from unbraid.results import sum_error
from unbraid.walk import run


def attributed(asked: Intervention, steps: int) -> Effects:
    """The effect of each edge, to first order.

    Args:
        asked: the form, its inputs, and what is replaced by what.
        steps: at how many points of the line gradients are taken.
    """
    form, clean, instead = asked.form, asked.clean, asked.instead
    changes = {stream: instead[stream] - clean[stream] for stream in asked.wiring.written}
    graph = subgraph(form.graph, form.graph.outputs, given=form.graph.sources)
    parts = []
    for step in range(steps):
        sources = {s: clean[s] + step / steps * (instead[s] - clean[s]) for s in form.graph.sources}
        linear = Linearised.of(form, graph, {**asked.given, **sources}, asked.function)
        parts.append(_at(Pull.of(linear, asked.wiring), changes))
    return averaged(parts)


def _at(pull: Pull, changes: Mapping[str, Tensor]) -> Effects:
    wiring, examples = pull.wiring, pull.examples
    change_of_all = _changed(pull, changes)
    target = examples.of(pull.linear.values)
    columns, rests, departures = list[list[Tensor | None]](), list[Tensor](), list[float]()
    sums = {stream: Summed(torch.zeros_like(gradient)) for stream, gradient in pull.whole.items()}
    for reader, pulled in pull.readers():
        column = [
            _edge(pull, writer, pulled, changes) if (writer.name, reader.name) in pull.edges else None
            for writer in wiring.writers
        ]
        columns.append(column)
        for stream, gradient in pulled.at_writers.items():
            sums[stream] = sums[stream].plus(gradient)
        edges = torch.stack([torch.zeros_like(target), *(edge for edge in column if edge is not None)])
        whole = _whole(pull, pulled, change_of_all)
        rests.append((whole - edges.sum(0)).mean())
        if wiring.plain:
            departures.append(sum_error(edges, whole))
    departures += [sums[stream].error(gradient) for stream, gradient in pull.whole.items()]
    names = tuple(w.name for w in wiring.writers), tuple(r.name for r in wiring.readers)
    effects = table_of(columns, target)
    return Effects(*names, effects, target, max(departures), torch.stack(rests), examples.summed)


@dataclass(frozen=True, eq=False)
class Summed:
    """A running sum, and the largest number among its parts.

    Attributes:
        total: the sum so far.
        largest: the largest number of any part.
    """

    total: Tensor
    largest: float = 0.0

    def plus(self, part: Tensor) -> "Summed":
        """The sum with one part more."""
        return Summed(self.total + part, max(self.largest, float(part.abs().max()) if part.numel() else 0.0))

    def error(self, whole: Tensor) -> float:
        """‖Σ − whole‖∞ relative to the largest of them all."""
        size = max(self.largest, float(whole.abs().max()) if whole.numel() else 0.0)
        departs = float((self.total - whole).abs().max()) if whole.numel() else 0.0
        return departs / size if size > 0 else departs


def _edge(pull: Pull, writer: Writer, pulled: Pulled, changes: Mapping[str, Tensor]) -> Tensor:
    """The effect of a writer's edge to one reader."""
    met = [stream for stream in writer.streams if stream in pulled.at_writers]
    parts = [pull.examples.dot(stream, pulled.at_writers[stream], changes[stream]) for stream in met]
    return sum(parts, start=torch.zeros_like(pull.examples.of(pull.linear.values)))


def _whole(pull: Pull, pulled: Pulled, changes: Mapping[str, Tensor]) -> Tensor:
    """⟨change of all that a reader reads, gradient there⟩."""
    parts = [pull.examples.dot(stream, gradient, changes[stream]) for stream, gradient in pulled.at_entries.items()]
    return sum(parts, start=torch.zeros_like(pull.examples.of(pull.linear.values)))


def _changed(pull: Pull, changes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By how much all that is read changes, where all that is written is replaced."""
    values = pull.linear.tape.values
    before = subgraph(pull.wiring.trunk, pull.wiring.trunk.outputs, given=tuple(pull.wiring.written))
    there = {s: values[s] + changes[s] if s in changes else values[s] for s in before.inputs if s in values}
    with torch.no_grad():
        changed = run(before, pull.linear.state, there)
    return {stream: changed[stream] - values[stream] for stream in before.outputs}

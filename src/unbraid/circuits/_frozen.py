"""Edges in the frozen linearisation: differences of terms times the frozen gradient; with constants they always sum.

Every non-linear factor is held at its value at the clean input, so the gradient g_j at what a reader reads is that of
an affine map. What a writer adds there is a term (`unravel`), carried by the trunk as it is frozen at either input:

    edge i → j = ⟨term i of what j reads, replaced, less the same, clean; g_j⟩
    constants  = ⟨what the trunk adds there by itself, replaced, less the same, clean; g_j⟩

Terms are not carried forward: g_j goes back along the trunk frozen at each of both, which is the same product. It is a
rule like those of layer-wise relevance propagation, for any model.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unbraid.circuits._effects import Effects, Intervention, table_of
from unbraid.circuits._pull import Pull, Pulled
from unbraid.discover.wiring import CONSTANTS, Reader, Wiring
from unbraid.errors import InexactError
from unbraid.form import Linearised, ResidualForm
from unbraid.freeze import freeze
from unbraid.graph import Graph
from unbraid.graph.state import State
from unbraid.results import sum_error
from unbraid.walk import Cotangents, Tape, constants, record, run, walk


def frozen(asked: Intervention) -> Effects:
    """The effect of each edge in the frozen linearisation.

    Args:
        asked: the form, its inputs, and what is replaced by what.

    Raises:
        InexactError: an operator has no rule.
    """
    form, wiring = asked.form, asked.wiring
    pull = Pull.of(Linearised.of(form, form.graph, asked.given, asked.function, frozen=True), wiring)
    before = _clean(form, wiring, asked.given)
    at = (
        FrozenTrunk.at(form, wiring, before),
        FrozenTrunk.at(form, wiring, {**before, **{s: asked.instead[s] for s in wiring.written}}),
    )
    columns, departures, target = list[list[Tensor | None]](), list[float](), pull.examples.of(pull.linear.values)
    for reader, pulled in pull.readers():
        columns.append(
            [_less(there, here) for here, there in zip(*(t.terms(pull, reader, pulled) for t in at), strict=True)]
        )
        column = columns[-1]
        changes = [
            pull.examples.dot(stream, gradient, at[1].values[stream] - at[0].values[stream])
            for stream, gradient in pulled.at_entries.items()
        ]
        whole = sum(changes, start=torch.zeros_like(target))
        edges = [torch.zeros_like(target), *(edge for edge in column if edge is not None)]
        departures.append(sum_error(torch.stack(edges), whole))
    effects = table_of(columns, target)
    names = (*(writer.name for writer in wiring.writers), CONSTANTS)
    if not bool(effects[-1].nan_to_num().any()):
        names, effects = names[:-1], effects[:-1]
    readers = tuple(reader.name for reader in wiring.readers)
    nothing = torch.zeros(len(readers), dtype=target.dtype, device=target.device)
    return Effects(names, readers, effects, target, max(departures), nothing, pull.examples.summed)


def _less(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else a - b


def adds_constants(asked: Intervention) -> bool:
    """Whether the trunk adds anything by itself that a reader reads: a norm's shift, a bias of a projection."""
    form, wiring = asked.form, asked.wiring
    if wiring.plain:
        return False
    try:
        trunk = FrozenTrunk.at(form, wiring, _clean(form, wiring, asked.given))
    except InexactError:  # an operator without a rule: what it adds by itself is not known
        return False
    return any(bool(value.any()) for stream, value in trunk.added if stream not in wiring.written)


def _clean(form: ResidualForm, wiring: Wiring, given: Mapping[str, Any]) -> dict[str, Any]:
    with torch.no_grad():
        return run(form.graph, form.state, given, keep=wiring.trunk.inputs)


@dataclass(frozen=True, eq=False)
class FrozenTrunk:
    """The trunk, frozen where what is written has certain values.

    Attributes:
        wiring: the writers and readers.
        graph: the frozen trunk.
        state: the state that goes with it.
        tape: a run of it.
    """

    wiring: Wiring
    graph: Graph
    state: State
    tape: Tape

    @staticmethod
    def at(form: ResidualForm, wiring: Wiring, values: Mapping[str, Any]) -> "FrozenTrunk":
        """The trunk frozen at some values of what enters it."""
        entering = {stream: values[stream] for stream in wiring.trunk.inputs}
        graph, state = freeze(wiring.trunk, form.state, entering)
        return FrozenTrunk(wiring, graph, state, record(graph, state, entering))

    @property
    def values(self) -> Mapping[str, Any]:
        """The values of its streams."""
        return self.tape.values

    @cached_property
    def added(self) -> list[tuple[str, Tensor]]:
        """What it adds by itself, and where."""
        return list(constants(self.graph, self.state, self.tape.values))

    def terms(self, pull: Pull, reader: Reader, pulled: Pulled) -> Iterator[Tensor | None]:
        """⟨term, gradient⟩ of what one reader reads for each writer, and last of the constants together."""
        wanted = {*self.wiring.written, *(stream for stream, _ in self.added)}
        gradients = walk(self.graph, Cotangents(self.graph, self.tape), pulled.at_entries, wanted)
        nothing = torch.zeros_like(pull.examples.of(pull.linear.values))

        def along(parts: Iterable[tuple[str, Tensor]]) -> Tensor:
            met = [pull.examples.dot(s, gradients[s], value) for s, value in parts if s in gradients]
            return sum(met, start=nothing)

        for writer in self.wiring.writers:
            there = (writer.name, reader.name) in pull.edges
            yield along([(stream, self.values[stream]) for stream in writer.streams]) if there else None
        yield along(self.added)

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor

from unbraid.form import TARGET, Aim, Examples, ResidualForm, Split, Target, aim, explained, outputs_read
from unbraid.graph import Graph, subgraph
from unbraid.walk import NOT_MET, Lengths, State, Tape, constants, freeze, record


@dataclass(frozen=True, eq=False)
class Setting:
    """One input, one target and one linearisation: what every analysis of single paths begins with.

    Attributes:
        form: the form, its casts widened.
        linear: its graph, frozen or not.
        state: the state that goes with it.
        aim: the target at a run of it, as the last segment of a longer graph.
        lengths: what counts as length.
        linearize: "frozen" or "jacobian".
    """

    form: ResidualForm
    linear: Graph
    state: State
    aim: Aim
    lengths: Lengths
    linearize: Literal["frozen", "jacobian"]

    @staticmethod
    def of(
        form: ResidualForm,
        args: Any,
        kwargs: Mapping[str, Any] | None,
        target: Target,
        linearize: Literal["frozen", "jacobian"],
        nested: bool,
        split: Split = None,
        output: str | int | None = None,
    ) -> "Setting":
        """Linearise a form at an input and run it."""
        exact = form.explaining(output).split(split).exact
        inputs = exact.inputs(args, kwargs)
        graph, state = exact.graph, exact.state
        live: dict[str, Any] | None = None
        if linearize == "frozen":
            read: tuple[str, ...] = (exact.output,)
            if len(graph.outputs) > 1:
                read = outputs_read(graph, exact.values(args, kwargs, ()), partial(explained, exact, target=target))
            needed = [segment.id for segment in subgraph(graph, read).segments]
            seen: dict[str, Any] = {s: inputs[s] for s in graph.outputs if s in inputs}
            live, wanted = seen, set(graph.outputs)

            def keep(stream: str, value: Any) -> None:
                if stream in wanted:
                    seen[stream] = value

            graph, state = freeze(graph, state, inputs, needed, seen=keep)
        found = aim(exact, graph, record(graph, state, inputs), target, live)
        return Setting(exact, graph, state, found, exact.lengths(nested), linearize)

    @property
    def graph(self) -> Graph:
        """The graph that is walked: it ends in the target."""
        return self.aim.graph

    @property
    def tape(self) -> Tape:
        """A run of it."""
        return self.aim.tape

    @property
    def output(self) -> str:
        """The stream at which all paths end: the target's."""
        return TARGET

    @cached_property
    def columns(self) -> dict[int, int]:
        """The column of each counted block in a mask."""
        return {block: column for column, block in enumerate(sorted(self.lengths.weights))}

    @property
    def blocks(self) -> tuple[str, ...]:
        """The names of the counted blocks."""
        return tuple(block.name for block in self.form.all_blocks if block.index in self.columns)

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """The whole gradient at every source, wherever a constant joins, and at the outputs."""
        return self.aim.gradients({*self.graph.sources, *(stream for stream, _ in self.fixed), *self.aim.outputs})

    @cached_property
    def examples(self) -> Examples:
        """The examples, told apart wherever products are taken."""
        return self.aim.examples(self.gradients)

    @cached_property
    def target(self) -> Tensor:
        """What is explained: the target of each example, or the sum where they are not separate."""
        return self.examples.of(self.aim.values)

    @cached_property
    def fixed(self) -> list[tuple[str, Tensor]]:
        """The constants of the frozen form; none in the other linearisation, where they mean nothing."""
        frozen = self.linearize == "frozen"
        return list(constants(self.linear, self.state, self.tape.values)) if frozen else []

    @cached_property
    def constant(self) -> Tensor:
        """What the constants add to the target, [batch]; in the jacobian linearisation the rest of the target."""
        if self.linearize == "jacobian":
            sources = [(source, self.tape.values[source]) for source in self.graph.sources]
            return self.target - self._along(sources, torch.zeros_like(self.target))
        return self._along(self.fixed, self.aim.remainder(self.examples, self.gradients))

    def _along(self, pairs: Iterable[tuple[str, Tensor]], start: Tensor) -> Tensor:
        """⟨gradient, value⟩ over some streams, per example."""
        reached = [(stream, value) for stream, value in pairs if stream in self.gradients]
        return sum((self.examples.dot(s, self.gradients[s], value) for s, value in reached), start=start)

    def length_of(self, masks: Tensor) -> Tensor:
        """The number of branches on each path."""
        total = torch.zeros(len(masks), dtype=torch.int64, device="cpu")
        for block, column in self.columns.items():
            weights = torch.tensor(
                (0, 0, *self.lengths.weights[block]), device="cpu"
            )  # not met, the skip, the branches
            total += weights[masks[:, column].long() - NOT_MET]
        return total

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from unbraid.form import Objective, ResidualForm, Split, Target, objective
from unbraid.graph import Graph
from unbraid.walk import NOT_MET, Cotangents, Lengths, State, Tape, constants, freeze, record, walk


@dataclass(frozen=True, eq=False)
class Setting:
    """One input, one target and one linearisation: what every analysis of single paths begins with.

    Attributes:
        form: the form, its casts widened.
        graph: its graph, frozen or not.
        state: the state that goes with the graph.
        tape: a run of the graph.
        aim: the target, linearised at the output.
        lengths: what counts as length.
    """

    form: ResidualForm
    graph: Graph
    state: State
    tape: Tape
    aim: Objective
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
    ) -> "Setting":
        """Linearise a form at an input and run it."""
        exact = form.split(split).exact
        inputs = exact.inputs(args, kwargs)
        graph, state = exact.graph, exact.state
        if linearize == "frozen":
            graph, state = freeze(graph, state, inputs)
        tape = record(graph, state, inputs)
        return Setting(
            exact, graph, state, tape, objective(tape.values[exact.output], target), exact.lengths(nested), linearize
        )

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
        """The whole gradient at every source and wherever a constant joins."""
        places = {*self.graph.sources, *(stream for stream, _ in self.fixed)}
        algebra = Cotangents(self.graph, self.tape)
        return walk(self.graph, algebra, {self.form.output: self.aim.cotangent}, places)

    @cached_property
    def fixed(self) -> list[tuple[str, Tensor]]:
        """The constants of the frozen form; none in the other linearisation, where they mean nothing."""
        frozen = self.linearize == "frozen"
        return list(constants(self.graph, self.state, self.tape.values)) if frozen else []

    @cached_property
    def through_sources(self) -> Tensor:
        """⟨gradient, source⟩ over all sources, [batch]: what all paths together must give."""
        pairs = [(self.gradients[s], self.tape.values[s]) for s in self.graph.sources if s in self.gradients]
        return sum((dot(gradient, value) for gradient, value in pairs), start=torch.zeros_like(self.aim.values))

    @cached_property
    def constant(self) -> Tensor:
        """What the constants add to the target, [batch]; in the jacobian linearisation the rest of the target."""
        if self.linearize == "jacobian":
            return self.aim.values - self.through_sources
        pairs = [(self.gradients[s], value) for s, value in self.fixed if s in self.gradients]
        return sum((dot(gradient, value) for gradient, value in pairs), start=self.aim.remainder.clone())

    def length_of(self, masks: Tensor) -> Tensor:
        """The number of branches on each path."""
        total = torch.zeros(len(masks), dtype=torch.int64)
        for block, column in self.columns.items():
            weights = torch.tensor((0, 0, *self.lengths.weights[block]))  # not met, the skip, the branches
            total += weights[masks[:, column].long() - NOT_MET]
        return total


def dot(gradient: Tensor, value: Tensor) -> Tensor:
    """⟨gradient, value⟩ per example."""
    return (gradient * value).reshape(len(gradient), -1).sum(1)

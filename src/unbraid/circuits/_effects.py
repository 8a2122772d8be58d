"""What every method gives: the effect of each edge on the target, for each example, and how exact that is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from unbraid.discover.wiring import CONSTANTS, Wiring
from unbraid.form import ResidualForm

Function: TypeAlias = Callable[[Mapping[str, Any]], Tensor]  # a target, of the values of a form's outputs by stream


@dataclass(frozen=True, eq=False)
class Intervention:
    """What is asked of every edge: the form at a clean input, and what takes the place of what is written there.

    Attributes:
        form: the form, its casts widened.
        wiring: its writers, readers and trunk.
        given: the clean inputs by stream.
        function: the target of the outputs by stream.
        clean: what writers write at the clean input, and the sources.
        instead: what takes their place.
    """

    form: ResidualForm
    wiring: Wiring
    given: Mapping[str, Any]
    function: Function
    clean: Mapping[str, Tensor]
    instead: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Effects:
    """The effects of edges.

    Attributes:
        writers: the names of the writers.
        readers: the names of the readers.
        per_example: by how much the target changes where an edge is replaced, [writers, readers, batch]; nan where
            there is no edge.
        target: the target as it is, [batch].
        error: what must sum to a whole, and by how much it departs; 0 where each edge is run by itself.
        interaction: [readers], what a reader's edges leave of the effect of replacing all of them; nan where unknown.
        summed: whether examples influence one another: then batch is 1, for their sum.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    per_example: Tensor
    target: Tensor
    error: float
    interaction: Tensor
    summed: bool

    def with_constants(self) -> "Effects":
        """With a row for what the trunk adds by itself, of which no value is replaced."""
        row = torch.full_like(self.per_example[:1], torch.nan)
        return replace(self, writers=(*self.writers, CONSTANTS), per_example=torch.cat([self.per_example, row]))


def averaged(parts: list[Effects]) -> Effects:
    """The mean of effects that were taken at several points."""
    first, count = parts[0], len(parts)
    return Effects(
        first.writers,
        first.readers,
        sum((part.per_example for part in parts[1:]), start=first.per_example) / count,
        first.target,
        max(part.error for part in parts),
        sum((part.interaction for part in parts[1:]), start=first.interaction) / count,
        any(part.summed for part in parts),
    )


def table_of(columns: list[list[Tensor | None]], like: Tensor) -> Tensor:
    """[writers, readers, batch] from a list of effects for each reader; nan where there is no edge."""
    none = torch.full_like(like, torch.nan)
    return torch.stack([torch.stack([none if e is None else e for e in column]) for column in columns], 1)

"""Given paths: at each addition every path goes the way that its mask says."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int16, Int64, Shaped
from torch import Tensor

from unbraid.graph import Add, Graph, Segment
from unbraid.walk._tape import Tape


@dataclass(frozen=True)
class Rows:
    """The cotangents of some of the chosen paths: those that pass the stream at hand.

    Attributes:
        rows: which paths, in ascending order.
        stack: their cotangents.
    """

    rows: Int64[Tensor, " rows"]
    stack: Shaped[Tensor, "rows *stream"]


@dataclass(frozen=True)
class Chosen:
    """The algebra of given paths: at an addition each goes the way that its mask says, and no other.

    Attributes:
        graph: the graph that is walked.
        tape: a run of it.
        columns: the column of the mask for each block that is counted.
        masks: the choices of each path: −2 (not met), −1 (the skip) or j ≥ 0 (branch j).
        chunk: how many cotangents are pulled back at once; by default all.
    """

    graph: Graph
    tape: Tape
    columns: Mapping[int, int]
    masks: Int16[Tensor, "paths blocks"]
    chunk: int | None = None

    def seed(self, cotangent: Tensor) -> Rows:
        """Every path begins at the output."""
        count = len(self.masks)
        return Rows(torch.arange(count, device="cpu"), cotangent.expand(count, *cotangent.shape))

    def plus(self, a: Rows, b: Rows) -> Rows:
        """The paths of both; a path that arrives twice, by routes that part within a segment, adds up."""
        rows = torch.unique(torch.cat([a.rows, b.rows]))
        stack = a.stack.new_zeros((len(rows), *a.stack.shape[1:]))
        for part in (a, b):
            stack.index_add_(0, torch.searchsorted(rows, part.rows).to(stack.device), part.stack)
        return Rows(rows, stack)

    def enter(self, add: Add, operand: int, value: Rows) -> Rows:
        """Only the paths that chose this operand."""
        kept = torch.arange(len(value.rows), device="cpu")
        if add.block in self.columns:
            kept = (self.masks[value.rows, self.columns[add.block]] == operand).nonzero()[:, 0]
        stream = dict(add.operands)[operand]
        stack = add.part(operand, value.stack[kept.to(value.stack.device)]).to(self.graph.streams[stream].dtype)
        return Rows(value.rows[kept], stack)

    def pull(self, segment: Segment, values: tuple[Rows | None, ...]) -> tuple[Rows | None, ...]:
        """Every path through J^T."""
        live = [value for value in values if value is not None and len(value.rows)]
        if not live:
            return (None,) * len(segment.inputs)
        rows = torch.unique(torch.cat([value.rows for value in live]))
        stacks = tuple(None if value is None else _spread(value, rows) for value in values)
        pulled = self.tape.pull(segment, stacks, self.chunk)
        return tuple(None if stack is None else Rows(rows, stack) for stack in pulled)


def _spread(value: Rows, rows: Tensor) -> Tensor:
    if value.rows.equal(rows):
        return value.stack
    stack = value.stack.new_zeros((len(rows), *value.stack.shape[1:]))
    return stack.index_copy_(0, torch.searchsorted(rows, value.rows).to(stack.device), value.stack)

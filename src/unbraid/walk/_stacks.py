from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unbraid.graph import Segment, reads
from unbraid.walk._merge import Merged, Node
from unbraid.walk._run import execute
from unbraid.walk._state import State


@dataclass(frozen=True, eq=False, slots=True)
class _Rows:
    """Where a value lies: in a tensor of its own, or as some rows of a stack."""

    base: Any
    serial: int
    start: int
    count: int
    along: int | None

    def value(self) -> Any:
        if self.along is None or self.count == self.base.shape[self.along]:
            return self.base
        return self.base.narrow(self.along, self.start, self.count)


class Stacks:
    """The values of merged variants while they are run; those computed together lie in one tensor.

    Args:
        merged: the variants.
        state: the parameters and buffers.
        inputs: the inputs by stream.
        behind: nodes that come last where they are run together with others.
    """

    def __init__(self, merged: Merged, state: State, inputs: Mapping[str, Any], behind: Collection[int] = ()) -> None:
        self._merged, self._state, self._behind = merged, state, behind
        self._rows: dict[int, _Rows] = {}
        self._serial = 0
        for stream, number in merged.inputs.items():
            self._keep([number], inputs[stream])

    def value(self, number: int) -> Any:
        """One value by itself."""
        return self._rows[number].value()

    def drop(self, numbers: Sequence[int]) -> None:
        """Let go of values."""
        for number in numbers:
            self._rows.pop(number, None)

    def execute(self, group: Sequence[int]) -> None:
        """Run nodes of one kind: one as it is, several as one batch, their values one below the other."""
        if len(group) > 1:
            group = sorted(group, key=self._place)  # rows that lie side by side need not be copied
        nodes = [self._merged.nodes[number] for number in group]
        step = nodes[0].step
        operands = {stream: self._operand(nodes, position) for position, stream in enumerate(reads(step))}
        for position, made in enumerate(execute(step, self._state, operands)):
            self._keep([node.makes[position] for node in nodes], made)

    def _place(self, number: int) -> tuple[bool, int, int]:
        rows = [self._rows[value] for value in self._merged.nodes[number].reads]
        lies = next(((row.serial, row.start) for row in rows if row.along is not None), (0, 0))
        return (number in self._behind, *lies)

    def _keep(self, numbers: list[int], made: Any) -> None:
        along = self._merged.dimensions[numbers[0]]
        if along is None or not isinstance(made, Tensor) or made.ndim <= along:
            along, count = None, 0
        else:
            count, odd = divmod(made.shape[along], len(numbers))
            if odd:
                raise RuntimeError(f"{made.shape[along]} rows are not those of {len(numbers)} batches of one size")
        self._serial += 1
        for position, number in enumerate(numbers):
            self._rows[number] = _Rows(made, self._serial, position * count, count, along)

    def _operand(self, nodes: list[Node], position: int) -> Any:
        numbers = [node.reads[position] for node in nodes]
        first = self._rows[numbers[0]]
        if len(nodes) == 1 or first.along is None:
            return first.value()
        step = nodes[0].step
        if isinstance(step, Segment) and step.inputs[position] in step.measured:
            # Read for its sizes alone: a tensor of these sizes without memory.
            sizes = list(first.value().shape)
            sizes[first.along] *= len(nodes)
            return first.base.new_empty(()).expand(sizes)
        return self._stacked(numbers, first.along)

    def _stacked(self, numbers: list[int], along: int) -> Tensor:
        """The values one below the other: rows of one tensor where they lie so already, otherwise a copy."""
        parts: list[tuple[Any, int, int, int]] = []
        for number in numbers:
            row = self._rows[number]
            if parts and parts[-1][1] == row.serial and parts[-1][2] + parts[-1][3] == row.start:
                parts[-1] = (*parts[-1][:3], parts[-1][3] + row.count)
            else:
                parts.append((row.base, row.serial, row.start, row.count))
        tensors = [base.narrow(along, start, count) for base, _, start, count in parts]
        if len(tensors) == 1:
            return tensors[0]
        stack = torch.cat(tensors, along)
        if len(set(numbers)) == len(numbers):
            self._keep(numbers, stack)  # the copies take the places of the originals, which can then go
        return stack

"""Values of merged variants while they run: what is computed together lies in one tensor, one value below the other.

Of the example in `_merge`, with x of two rows, f3 runs at h2 and h1 at once:

    node 4 reads value 4, node 5 reads value 2           two tensors of 2 rows are copied together, one of 4 rows
    they make values 5 and 6                             rows 0 to 1 and 2 to 3 of one tensor of 4 rows
    node 6 reads 4 and 5, node 7 reads 2 and 6           the next group reads 5 and 6 as they lie: no copy

Rows that lie side by side are one piece, so a group is ordered by where its first operands lie.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unbraid.graph import Segment, reads
from unbraid.graph.state import State
from unbraid.sweep._merge import NONE, Merged, Numbers
from unbraid.walk import execute


@dataclass(eq=False, slots=True)
class _Stack:
    """Values that lie one below the other in one tensor, or one value as it is.

    Attributes:
        base: the tensor.
        along: the dimension along which they lie; None for one value that cannot be stacked.
        count: how many rows each has.
        left: how many of them are still wanted.
    """

    base: Any
    along: int | None
    count: int
    left: int

    def values(self, first: int, number: int) -> Any:
        """So many values from the first, side by side."""
        if self.along is None or number * self.count == self.base.shape[self.along]:
            return self.base
        return self.base.narrow(self.along, first * self.count, number * self.count)


class Stacks:
    """The values of merged variants while they are run; those computed together lie in one tensor.

    Args:
        merged: the variants.
        state: the parameters and buffers.
        inputs: the inputs by stream.
        behind: nodes that come last where they are run together with others.
    """

    def __init__(self, merged: Merged, state: State, inputs: Mapping[str, Any], behind: Collection[int] = ()) -> None:
        self._merged, self._state = merged, state
        self._behind = np.zeros(len(merged.runs), bool)
        self._behind[[*behind]] = True
        self._stacks: dict[int, _Stack] = {}
        self._serial = 0
        # For each value its stack, and which of the stack's values it is.
        self._lies = np.full(len(merged.dimensions), NONE)
        self._row = np.zeros(len(merged.dimensions), np.int64)
        for stream, number in merged.inputs.items():
            self._keep(np.array([number]), inputs[stream])

    def value(self, number: SupportsIndex) -> Any:
        """One value by itself."""
        return self._stacks[self._lies[number]].values(int(self._row[number]), 1)

    def drop(self, numbers: NDArray[np.integer[Any]]) -> None:
        """Let go of values."""
        lies = self._lies[numbers].tolist()
        self._lies[numbers] = NONE
        for serial in lies:
            if serial != NONE:
                stack = self._stacks[serial]
                stack.left -= 1
                if not stack.left:
                    del self._stacks[serial]

    def execute(self, group: Numbers) -> None:
        """Run nodes of one kind: one as it is, several as one batch, their values one below the other."""
        if len(group) > 1:
            group = group[self._order(group)]  # rows that lie side by side are one piece
        step = self._merged.step(group[0])
        operands = {stream: self._operand(group, position) for position, stream in enumerate(reads(step))}
        for position, value in enumerate(execute(step, self._state, operands)):
            self._keep(self._merged.makes[group, position], value)

    def _order(self, group: Numbers) -> NDArray[np.int64]:
        """By where their first operands lie, those that come last behind."""
        behind = self._behind[group]
        for values in self._merged.reads[group].T:
            if values[0] != NONE and self._stack(values[0]).along is not None:
                return np.lexsort((self._row[values], self._lies[values], behind))
        return np.argsort(behind, kind="stable")

    def _stack(self, number: SupportsIndex) -> _Stack:
        return self._stacks[self._lies[number]]

    def _keep(self, numbers: NDArray[np.integer[Any]], stack: Any) -> None:
        along = int(self._merged.dimensions[numbers[0]])
        rows = along != NONE and isinstance(stack, Tensor) and stack.ndim > along
        count, odd = divmod(stack.shape[along], len(numbers)) if rows else (0, 0)
        if odd:
            raise RuntimeError(f"{stack.shape[along]} rows are not those of {len(numbers)} batches of one size")
        self._serial += 1
        self._stacks[self._serial] = _Stack(stack, along if rows else None, count, len(numbers))
        self._lies[numbers] = self._serial
        self._row[numbers] = np.arange(len(numbers))

    def _operand(self, group: Numbers, position: int) -> Any:
        numbers = self._merged.reads[group, position]
        first = self._stack(numbers[0])
        if len(numbers) == 1 or first.along is None:
            return self.value(numbers[0])
        step = self._merged.step(group[0])
        if isinstance(step, Segment) and step.inputs[position] in step.size_only:
            # Read for its sizes alone: a tensor of these sizes without memory.
            sizes = list(self.value(numbers[0]).shape)
            sizes[first.along] *= len(numbers)
            return first.base.new_empty(()).expand(sizes)
        return self._stacked(numbers, first.along)

    def _stacked(self, numbers: Numbers, along: int) -> Tensor:
        """The values one below the other: rows of one tensor where they lie so already, otherwise a copy."""
        lies, row = self._lies[numbers], self._row[numbers]
        breaks = np.flatnonzero((lies[1:] != lies[:-1]) | (row[1:] != row[:-1] + 1))
        bounds = [0, *(breaks + 1).tolist(), len(numbers)]
        tensors = [
            self._stacks[serial].values(first, end - start)
            for serial, first, start, end in zip(
                lies[bounds[:-1]].tolist(), row[bounds[:-1]].tolist(), bounds, bounds[1:], strict=False
            )
        ]
        if len(tensors) == 1:
            return tensors[0]
        stack = torch.cat(tensors, along)
        if len(set(numbers.tolist())) == len(numbers):
            self.drop(numbers)
            self._keep(numbers, stack)  # the copies take the places of the originals, which can then go
        return stack

"""At which positions of a sequence a branch's output is replaced, and the step that does it.

A step before the sum takes the stand-in where the mask says so, and elsewhere what the branch gives in this very run,
as a hook that writes into its output would: what other branches of the set change before it, it still sees.

    branch, stand-in, mask  →  where(mask, stand-in, branch)  →  the sum
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import SupportsIndex, TypeAlias

import torch
from torch import Tensor, fx

from unbraid.errors import DataError
from unbraid.form import ResidualForm
from unbraid.graph import Add, BranchIndex, Graph, Segment, Step, Stream, runnable
from unbraid.lesions._replace import Replacement
from unbraid.sweep import Batch

Positions: TypeAlias = SupportsIndex | Sequence[SupportsIndex] | Tensor


@dataclass(frozen=True)
class Masks:
    """Which positions of each branch's output are replaced.

    Attributes:
        chosen: their numbers, or which they are for each example, [batch, positions].
        streams: for each (block, branch) the stream that says it, [batch, positions, 1].
    """

    chosen: tuple[int, ...] | Tensor
    streams: Mapping[BranchIndex, Stream]

    def of(self, batch: Batch, values: Mapping[BranchIndex, Tensor]) -> dict[str, Tensor]:
        """The masks for what the branches gave.

        Raises:
            IndexError: there is no such position.
            DataError: the mask has other sizes than the batch.
        """
        return {self.streams[branch].id: self._mask(batch, value) for branch, value in values.items()}

    def _mask(self, batch: Batch, value: Tensor) -> Tensor:
        examples, length = value.shape[:2]
        if isinstance(self.chosen, Tensor):
            if self.chosen.shape != (examples, length):
                raise DataError(
                    f"positions: a mask has the sizes of the batch, [batch, positions]; it is {list(self.chosen.shape)}"
                    f", and batch {batch.number} is [{examples}, {length}]."
                )
            return self.chosen.to(value.device)[:, :, None]
        mask = torch.zeros(examples, length, 1, dtype=torch.bool, device=value.device)
        for position in self.chosen:
            if not -length <= position < length:
                raise IndexError(
                    f"positions: there is no position {position}; batch {batch.number} has {length}, numbered 0 to "
                    f"{length - 1}, or −{length} to −1 from the end."
                )
            mask[:, position] = True
        return mask


def masks_of(form: ResidualForm, streams: Mapping[BranchIndex, str], positions: Positions) -> Masks:
    """The masks of some branches' outputs.

    Raises:
        ValueError: a stream has no dimension of positions, or `positions` are none.
    """
    masks = {}
    for branch, stream in streams.items():
        shape = form.streams[stream].shape
        if len(shape) != 3 or "batch" in shape[1:]:
            raise ValueError(
                f"positions: only streams [batch, positions, width] have positions; {stream!r}, which block "
                f"{branch[0]} adds, is {list(shape)}. Leave positions out to replace all of it."
            )
        masks[branch] = Stream(f"positions of {stream}", (*shape[:2], 1), torch.bool)
    return Masks(_chosen(positions), masks)


def _chosen(positions: Positions) -> tuple[int, ...] | Tensor:
    if isinstance(positions, Tensor) and positions.dtype is torch.bool and positions.ndim == 2:
        return positions
    listed = positions.tolist() if isinstance(positions, Tensor) else positions
    try:
        numbers = tuple(map(_index, listed if isinstance(listed, Sequence) else [listed]))
    except TypeError:
        numbers = ()
    if not numbers:
        raise ValueError(
            f"positions: an int, several ints, or a bool tensor [batch, positions]; got {_described(positions)}."
        )
    return numbers


def _index(position: SupportsIndex) -> int:
    if isinstance(position, bool):
        raise TypeError("a bool is no position")
    return operator.index(position)


def _described(positions: object) -> str:
    if isinstance(positions, Tensor):
        return f"a tensor {list(positions.shape)} of {str(positions.dtype).removeprefix('torch.')}"
    return repr(positions)


def in_words(positions: Positions) -> str:
    """Where the output is replaced: "at positions 3, 5"."""
    chosen = _chosen(positions)
    if isinstance(chosen, Tensor):
        return "where the mask says so"
    return f"at position{'s' if len(chosen) > 1 else ''} {', '.join(map(str, chosen))}"


def patched(
    graph: Graph, replacement: Replacement, masks: Mapping[BranchIndex, Stream]
) -> tuple[Graph, Mapping[BranchIndex, str]]:
    """The graph with a step before the sums that puts stand-ins at the masked positions, and the streams it makes.

    No sum reads them yet. Stand-ins and masks are inputs of the graph.
    """
    steps: list[Step] = []
    instead: dict[BranchIndex, str] = {}
    more = {stream.id: stream for stream in (*replacement.given, *masks.values())}
    streams = {**graph.streams, **more}
    for step in graph.steps:
        for branch, stream in _operands(step):
            if branch in replacement.instead:
                instead[branch] = name = f"{stream}, patched"
                if name not in streams:  # one stream may be two operands
                    inputs = (masks[branch].id, replacement.instead[branch], stream)
                    steps.append(Segment(name, inputs, (name,), _WHERE))
                    streams[name] = replace(graph.streams[stream], id=name)
        steps.append(step)
    return replace(graph, streams=streams, steps=tuple(steps), inputs=(*graph.inputs, *more)), instead


def _operands(step: Step) -> list[tuple[BranchIndex, str]]:
    return [((step.block, operand), stream) for operand, stream in step.operands] if isinstance(step, Add) else []


def _where() -> fx.GraphModule:
    graph = fx.Graph()
    mask, stand_in, branch = map(graph.placeholder, ("mask", "stand_in", "branch"))
    graph.output(graph.call_function(torch.ops.aten.where.self, (mask, stand_in, branch)))
    return runnable(graph, "where")


_WHERE = _where()

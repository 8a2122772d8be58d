from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from unbraid.form._exactness import relative_error, tolerance
from unbraid.form._form import ResidualForm
from unbraid.graph import Graph, Step, differentiable
from unbraid.walk import (
    ALONE,
    Budget,
    Room,
    Schedule,
    Size,
    device_of,
    dimension,
    measured,
    merge,
    resident,
    run_variants,
    schedule,
)

_FEW = 1  # example that is run by itself to check that a larger batch changes it by rounding alone
# Bytes that stacks may take where the model itself takes less, and their share of what the model takes: one plain run
# has its weights, its widest step, and Python with torch in memory, about 300 MB.
_FLOOR, _SHARE, _CACHE = 48e6, 0.3, 2e6


@dataclass(eq=False)
class Part:
    """Variants that are laid over one another, and how they run.

    Attributes:
        form: what they are variants of.
        graph: its graph with the streams that are given besides.
        variants: the steps of each.
        max_batch: how many examples run at once at most.
        stacked: whether variants run together; False once that was seen to change them.
    """

    form: ResidualForm
    graph: Graph
    variants: Sequence[Sequence[Step]]
    max_batch: int | None
    stacked: bool
    sizes: Mapping[int | str, Size] | None = None
    volume: int = 1
    orders: dict[int, Schedule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.merged = merge(self.graph, self.variants)
        alike = [node.kind for node in self.merged.nodes if node.kind != ALONE]
        self.alike = len(set(alike)) < len(alike)
        self.stacked = self.stacked and self.alike

    def outputs(self, inputs: Mapping[str, Any], size: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each variant with its outputs; if one is handed out twice, the later counts."""
        if self.stacked and self.sizes is None:
            yield from self._first(inputs, size)
            if self.stacked:
                return
        yield from run_variants(self.merged, self._order(inputs, size), self.form.state, inputs)

    def _first(self, inputs: Mapping[str, Any], size: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The first batch: one variant must be what a plain run of a few examples gives, else none runs together."""
        few = min(_FEW, size) if self._by_example() else size
        self.volume = _volume(inputs) * few // size or 1
        try:
            part = {name: self._head(name, value, few, size) for name, value in inputs.items()}
            chosen, alone, self.sizes = self._plainly(part)
            for variant, values in run_variants(self.merged, self._order(inputs, size), self.form.state, inputs):
                if variant == chosen and not self._same(values, alone, few, size):
                    break
                yield variant, values
            else:
                return
        except RuntimeError:  # the graph does not run at another batch size
            pass
        self.stacked = False
        self.orders.clear()

    def _plainly(self, inputs: Mapping[str, Any]) -> tuple[int, dict[str, Any], dict[int | str, Size]]:
        """A variant that departs from the first halfway, by itself; and what each step takes.

        It is stacked with others wherever any are: as the first variant up to where it departs, and beside it then.
        """
        apart = (self.merged.needs != self.merged.needs[0]).sum(axis=1)
        variant = int(np.abs(apart - apart.max() / 2).argmin())
        return variant, *measured(self.merged, variant, self.form.state, inputs)

    def _same(self, together: Mapping[str, Any], alone: Mapping[str, Any], few: int, size: int) -> bool:
        bound = tolerance("forward", self.form.dtype) if self.form.tolerance is None else self.form.tolerance
        return all(
            _close(self._head(stream, together[stream], few, size), alone[stream], bound) for stream in self._compared()
        )

    def _compared(self) -> list[str]:
        """The outputs of floating point; whole numbers, such as the class with the largest score, may flip."""
        floats = [stream for stream in self.graph.outputs if differentiable(self.graph.streams[stream].dtype)]
        return floats or list(self.graph.outputs)

    def _by_example(self) -> bool:
        """Whether a few examples suffice for a comparison: not for an output such as the mean loss of a batch."""
        return all(dimension(self.graph.streams[stream]) is not None for stream in self._compared())

    def _head(self, stream: str, value: Any, few: int, size: int) -> Any:
        along = dimension(self.graph.streams[stream])
        if along is None or not isinstance(value, Tensor):
            return value
        return value.narrow(along, 0, value.shape[along] * few // size)

    def _order(self, inputs: Mapping[str, Any], size: int) -> Schedule:
        """The schedule for a batch of this size; that of the batch before if nothing has changed."""
        volume = _volume(inputs)
        key = volume if self.max_batch is None else size
        if key not in self.orders:
            self.orders = {key: schedule(self.merged, self._room(volume, size))}
        return self.orders[key]

    def _room(self, volume: int, size: int) -> Room:
        places = self.merged.needs.shape[1]
        if not self.stacked or self.sizes is None:
            return Room([1] * places, [1] * places)
        if self.max_batch is not None:
            together = max(1, self.max_batch // size)
            return Room([together] * places, [together] * places)
        scale = volume / self.volume
        weights = resident(self.form.state)
        widest = max(found.working for found in self.sizes.values())
        cache = _CACHE if device_of(self.form.state).type == "cpu" else float("inf")
        share = _SHARE * (weights + scale * widest)
        return Budget(max(_FLOOR, share), max(2 * _FLOOR, share), cache).room(self.merged, self.sizes, scale)


def _close(a: Tensor, b: Tensor, bound: float) -> bool:
    distance, size = (a - b).abs().max(), b.abs().max()
    # In the tensors' own type, as float64 copies of all logits would cost as much as a block; nan where one is not
    # finite, or an overflow, which the careful measure tells apart.
    return bool(distance <= bound * size) or relative_error(a, b) <= bound


def _volume(inputs: Mapping[str, Any]) -> int:
    return sum(value.numel() for value in inputs.values() if isinstance(value, Tensor))

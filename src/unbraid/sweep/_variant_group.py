"""Variants that are laid over one another, run, and compared with plain runs before their numbers count.

Three blocks, the whole model and two lesions, a batch of 32 examples:

    1. the variant of most steps runs by itself at one example: sizes of every step, and what stacks must equal
    2. the merged variants run on all examples, steps of one kind as one batch (`walk`)
    3. of the whole, which ran among others, the first example is compared with 1.; where it departs by more than
       rounding nothing is stacked, and each variant runs by itself

The node compared comes last in its stack, so that its first example has others before it and, behind it, those of its
own batch: what flows in one direction only shows as well. In a batch of one example two nodes of a stack are compared.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from unbraid.form import ResidualForm
from unbraid.graph import Graph, Step, differentiable
from unbraid.graph.state import State, device_of, resident
from unbraid.results import relative_error, tolerance
from unbraid.sweep._memory_budget import Budget, Size, by_step, measure
from unbraid.sweep._merge import ALONE, dimension, merge
from unbraid.sweep._probe_variants import probe_variants, stacked_kinds, used
from unbraid.sweep._schedule import Room, Schedule, schedule
from unbraid.sweep._variants import run_variants

_FEW = 1  # example that is run by itself to check that a larger batch changes it by rounding alone
# Bytes that stacks may take where the model itself takes less, and their share of what the model takes: one plain run
# has its weights, its widest step, and Python with torch in memory, about 300 MB.
_FLOOR, _SHARE, _CACHE = 48e6, 0.3, 2e6


@dataclass(eq=False)
class VariantGroup:
    """Variants that are laid over one another, and how they run.

    Attributes:
        form: what they are variants of.
        graph: its graph with the streams that are given besides.
        variants: the steps of each.
        max_batch: how many examples run at once at most.
        states: the form's tensors, laid out as stacks are tried with them, one way after the other; none where variants
            do not run together, or once that was seen to change them.
        sizes: what each step takes for a few examples, once that was measured.
        contiguous: the outputs that the model hands out contiguous, seen at the same time.
        volume: how many numbers the inputs of these examples have.
        orders: in which order nodes are run, by the size of the batch.
        compared: the kinds of nodes that were stacked in a variant that came out as in a plain run.
    """

    form: ResidualForm
    graph: Graph
    variants: Sequence[Sequence[Step]]
    max_batch: int | None
    states: Sequence[State]
    sizes: Mapping[int | str, Size] = field(default_factory=dict)
    contiguous: frozenset[str] = frozenset()
    volume: int = 0
    orders: dict[int, Schedule] = field(default_factory=dict)
    compared: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.merged = merge(self.graph, self.variants)
        kinds = self.merged.kinds[self.merged.kinds != ALONE]
        self.alike = len(np.unique(kinds)) < len(kinds)
        self.states = self.states if self.alike else ()

    @property
    def stacked(self) -> bool:
        """Whether variants run together."""
        return bool(self.states)

    def outputs(self, inputs: Mapping[str, Any], size: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each variant with its outputs; if one is handed out twice, the later counts."""
        while self.stacked:
            if (yield from self._together(inputs, size, self.states[0])):
                return
            self.states = self.states[1:]
            self.compared.clear()
            self.orders.clear()
        yield from run_variants(self.merged, self._order(inputs, size), self.form.state, inputs)

    def _together(
        self, inputs: Mapping[str, Any], size: int, state: State
    ) -> Generator[tuple[int, dict[str, Any]], None, bool]:
        """Variants as one larger batch; False where one is not what a plain run of a few examples gives.

        Of each kind of step that is stacked for the first time, one at least is compared. It comes last in its stack,
        so that its first example has others before it and, behind it, those of its own batch: what flows in one
        direction only shows as well. In a batch without more examples than are compared, two of a stack are.
        """
        try:
            few = min(_FEW, size) if self._by_example() else size
            part = {name: self._head(name, value, few, size) for name, value in inputs.items()}
            alone = self._alone(self._longest(), part) if not self.sizes else {}
            self.volume = self.volume or _volume(part) or 1
            order = self._order(inputs, size)
            new = {kind: at for kind, at in stacked_kinds(self.merged, order).items() if kind not in self.compared}
            alone |= self._alone(probe_variants(self.merged, new.values(), list(alone), 1 if few < size else 2), part)
            behind = used(self.merged, alone)
            for variant, values in run_variants(self.merged, order, state, inputs, behind):
                if variant in alone and not self._same(values, alone[variant], few, size):
                    return False
                yield variant, values if state is self.form.state else self._as_the_model_does(values)
        except RuntimeError:  # the graph does not run at another batch size, or with other strides
            return False
        self.compared |= new.keys()
        return True

    def _as_the_model_does(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs that lie in memory as the model lays them out: the metric may ask for a view."""
        return {name: value.contiguous() if name in self.contiguous else value for name, value in values.items()}

    def _longest(self) -> list[int]:
        """The variant of most steps, which is the whole model if that is among them; and more if it lacks some."""
        first = int((self.merged.needs >= 0).sum(axis=1).argmax())
        return [first, *probe_variants(self.merged, by_step(self.merged), [first])]

    def _alone(self, variants: Sequence[int], inputs: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
        """Variants by themselves; notes what each step takes."""
        values, sizes = measure(self.merged, variants, self.form.state, inputs)
        if not self.sizes:
            self.contiguous = frozenset(s for s, v in values[0].items() if isinstance(v, Tensor) and v.is_contiguous())
        self.sizes = {**sizes, **self.sizes}
        return dict(zip(variants, values, strict=True))

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
        if not self.stacked:
            return Room([1] * places, [1] * places)
        if self.max_batch is not None:
            together = max(1, self.max_batch // size)
            return Room([together] * places, [together] * places)
        scale = volume / self.volume
        weights = resident(self.form.state)
        widest = max(step_size.working for step_size in self.sizes.values())
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

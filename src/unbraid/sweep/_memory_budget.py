"""What a step of a graph takes in memory, measured on a few examples.

Stacks are bounded by the cache, then by memory. Additions take as many rows as the branches before them, where there is
room for nearly as many of both. By memory alone they were 12 and 16 in the sweep over 2^12 subnetworks, so that what
was added had to be copied together from two batches: 1,195 copies, now 502, and 15 % of the time. To make every step of
a block take as few as any costs more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from unbraid.graph import Add, Segment, Step, reads
from unbraid.graph.state import State, meta_tensor
from unbraid.sweep._merge import NONE, Merged
from unbraid.sweep._probe_variants import used
from unbraid.sweep._schedule import Room
from unbraid.walk import execute


@dataclass(frozen=True)
class Size:
    """Bytes that one step takes.

    Attributes:
        working: while it runs, temporaries included.
        living: its operands and its results, which wait for their readers.
        weights: its parameters, which it has however many examples there are.
    """

    working: int
    living: int
    weights: int


def measure(
    merged: Merged, variants: Sequence[int], state: State, inputs: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[int | str, Size]]:
    """Run a few variants node by node and note what each step takes; returns their outputs and the sizes."""
    values: dict[int, Any] = {number: inputs[stream] for stream, number in merged.inputs.items()}
    sizes: dict[int | str, Size] = {}
    nodes = sorted(used(merged, variants))
    last: dict[int, int] = {}
    for number in nodes:
        last |= dict.fromkeys(merged.reads[number].tolist(), number)
    wanted = set(merged.outputs[variants].flatten().tolist())
    for number in nodes:
        step, given = merged.step(number), merged.reads[number].tolist()
        operands = {stream: values[value] for stream, value in zip(reads(step), given, strict=False)}
        with torch.no_grad(), _Largest() as watch:
            results = execute(step, state, operands)
        values.update(zip(merged.makes[number].tolist(), results, strict=False))
        before = sum(map(_bytes, operands.values()))
        weights = sum(_bytes(meta_tensor(state, name)) for name in step.params) if isinstance(step, Segment) else 0
        sizes[_key(step)] = Size(before + 2 * watch.largest, before + sum(map(_bytes, results)), weights)
        for value in given:
            if last[value] == number and value not in wanted:
                values.pop(value, None)
    outputs = []
    for variant in variants:
        variant_outputs = map(values.__getitem__, merged.outputs[variant].tolist())
        outputs.append(dict(zip(merged.graph.outputs, variant_outputs, strict=True)))
    return outputs, sizes


def by_step(merged: Merged) -> list[list[set[int]]]:
    """The nodes of each step, wherever a variant has it, as one group each, as `probe_variants` takes them."""
    by_key: dict[int | str, set[int]] = {}
    nodes = np.unique(merged.needs[merged.needs != NONE])
    for number in np.unique(merged.runs[nodes]).tolist():
        alike = nodes[merged.runs[nodes] == number].tolist()
        by_key.setdefault(_key(merged.steps[number]), set()).update(alike)
    return [[group] for group in by_key.values()]


@dataclass(frozen=True)
class Budget:
    """Bytes that stacks may take.

    Attributes:
        working: for what is being run.
        living: for what waits.
        cache: what is being run may take as much; beyond it, only some times the weights that it shares.
    """

    working: float
    living: float
    cache: float

    def room(self, merged: Merged, sizes: Mapping[int | str, Size], scale: float) -> Room:
        """How many nodes of each place can be run at once, and can wait.

        Args:
            merged: the variants.
            sizes: what each step takes at some number of examples.
            scale: how many times as many there are.
        """
        places = []
        for column in merged.needs.T:
            numbers = np.unique(merged.runs[column[column != NONE]])
            places.append([merged.steps[number] for number in numbers])
        run, live = [], []
        for steps in places:
            met = [sizes[key] for key in set(map(_key, steps)) & sizes.keys()]
            fast = max(self.cache, _REREAD * max((size.weights for size in met), default=0))
            run.append(_times(min(self.working, fast), scale * max((size.working for size in met), default=0)))
            live.append(_times(self.living, scale * max((size.living for size in met), default=0)))
        _match(places, run)
        # More than the largest stack that is still to come need not wait: what waits long has left the cache.
        widest = list(accumulate(reversed(run), max))[::-1]
        return Room(run, [*map(min, live, widest)])


# To read activations from beyond the cache costs more than the call that a larger stack saves; not so where each call
# reads the weights anew and they weigh more.
_REREAD = 8.0


def _match(places: Sequence[Sequence[Step]], run: list[int]) -> None:
    """Where there is room for nearly as many additions as branches, or for more, take the same number of both.

    What came out as one larger batch is then added as one, and its rows need no copies. Half as many in a batch cost
    less than those; fewer do not.
    """
    for place, steps in enumerate(places[1:], start=1):
        fewer = min(run[place - 1 : place + 1])
        if 2 * fewer >= run[place - 1] and all(isinstance(step, Add) for step in steps):
            run[place - 1 : place + 1] = [fewer, fewer]


def _times(room: float, size: float) -> int:
    return max(1, int(min(room / max(size, 1), 2**31)))


def _key(step: Step) -> int | str:
    """What stays of a step when it is moved to another place of the graph."""
    return id(step.code) if isinstance(step, Segment) else f"block {step.block}"


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the largest tensor that any operator makes; a view, of a transposed weight say, makes none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        larger = [tensor for tensor in _tensors(result) if _bytes(tensor) > self.largest]
        if larger:
            given = {_memory(tensor) for tensor in _tensors((args, kwargs))}
            self.largest = max([self.largest, *(_bytes(tensor) for tensor in larger if _memory(tensor) not in given)])
        return result


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):  # most operators make one
        return [tree]
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0

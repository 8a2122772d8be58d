"""What a step of a graph takes in memory, measured on a few examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from unbraid.graph import Segment, Step, makes, reads
from unbraid.walk._merge import Merged
from unbraid.walk._run import State, execute
from unbraid.walk._schedule import Room


@dataclass(frozen=True)
class Size:
    """Bytes that one step takes.

    Attributes:
        working: while it runs, temporaries included.
        living: its operands and its results, which wait for their readers.
    """

    working: int
    living: int


def measured(
    steps: Sequence[Step], state: State, inputs: Mapping[str, Any], outputs: Sequence[str]
) -> tuple[dict[str, Any], dict[int | str, Size]]:
    """Run steps in order and note what each takes; returns the outputs and the sizes."""
    values, sizes = dict(inputs), {}
    last = {stream: number for number, step in enumerate(steps) for stream in reads(step)}
    for number, step in enumerate(steps):
        with torch.no_grad(), _Largest() as watch:
            made = dict(zip(makes(step), execute(step, state, values), strict=True))
        values.update(made)
        before = sum(_bytes(values[stream]) for stream in reads(step))
        sizes[_key(step)] = Size(before + 2 * watch.largest, before + sum(map(_bytes, made.values())))
        for stream in reads(step):
            if last[stream] == number and stream not in outputs:
                values.pop(stream, None)
    return {stream: values[stream] for stream in outputs}, sizes


def room_within(merged: Merged, sizes: Mapping[int | str, Size], scale: float, working: float, living: float) -> Room:
    """How many nodes of each place can be run at once, and can wait, within so many bytes.

    Args:
        merged: the variants.
        sizes: what each step takes at some number of examples.
        scale: how many times as many there are.
        working: bytes for what is being run.
        living: bytes for what waits.
    """
    run, live = [], []
    for place in range(merged.needs.shape[1]):
        nodes = [merged.nodes[number] for number in np.unique(merged.needs[:, place]) if number >= 0]
        met = [sizes[key] for key in {_key(node.step) for node in nodes} & sizes.keys()]
        run.append(_times(working, scale * max((size.working for size in met), default=0)))
        live.append(_times(living, scale * max((size.living for size in met), default=0)))
    return Room(run, live)


def _times(room: float, size: float) -> int:
    return max(1, int(min(room / max(size, 1), 2**31)))


def _key(step: Step) -> int | str:
    """What stays of a step when it is moved to another place of the graph."""
    return id(step.code) if isinstance(step, Segment) else f"block {step.block}"


class _Largest(TorchDispatchMode):
    """Notes the largest tensor that any operator gives, views included: they stand for what they are read from."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.largest = max([self.largest, *map(_bytes, pytree.tree_leaves(made))])
        return made


def _bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from unbraid.graph.state import State
from unbraid.sweep._batched_steps import Stacks
from unbraid.sweep._merge import Merged
from unbraid.sweep._schedule import Schedule


def run_variants(
    merged: Merged, order: Schedule, state: State, inputs: Mapping[str, Any], behind: Collection[int] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Compute the outputs of merged variants without gradients, each as soon as it is there.

    Values are let go of after their last reader, outputs once they have been handed out.

    Args:
        merged: the variants.
        order: in which their nodes are run.
        state: the parameters and buffers.
        inputs: the inputs by stream.
        behind: nodes that come last where they are run together with others.

    Yields:
        The number of a variant, and its outputs by stream.
    """
    stacks = Stacks(merged, state, inputs, behind)
    groups = (np.empty(0, np.int32), *order.groups)
    for group, finished, last in zip(groups, order.finished, order.last, strict=True):
        with torch.no_grad():
            if len(group):
                stacks.execute(group)
        for variant in finished.tolist():
            values = map(stacks.value, merged.outputs[variant])
            yield variant, dict(zip(merged.graph.outputs, values, strict=True))
        stacks.drop(last)

"""Activation checkpointing: of K blocks, √K activations are kept, and the others computed a second time.

A checkpointed segment runs again on copies of the buffers that it began with. Torch's own recomputation would move
running statistics twice, and a layer whose buffer steers its result would compute another one.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import isqrt

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

__all__ = ["run_blocks"]


def run_blocks(blocks: nn.Sequential, h: Tensor, *, checkpointing: bool) -> Tensor:
    """Run the blocks; with checkpointing, where gradients are wanted, in about √K segments (Chen et al. 2016).

    Each segment keeps its input alone; on the way back it runs again, with the random numbers and the buffers that it
    had. So memory grows with √K, time by a forward pass, and gradients and running statistics are the same.
    """
    if not (checkpointing and torch.is_grad_enabled() and len(blocks)) or torch.compiler.is_exporting():
        return blocks(h)
    size = 1 + isqrt(len(blocks) - 1)
    for start in range(0, len(blocks), size):
        segment = nn.Sequential(*list(blocks)[start : start + size])
        # The last one is pulled back at once: to keep its activations costs nothing.
        h = segment(h) if start + size >= len(blocks) else _again_on_the_way_back(segment, h)
    return h


def _again_on_the_way_back(segment: nn.Sequential, h: Tensor) -> Tensor:
    before = {name: buffer.clone() for name, buffer in segment.named_buffers()}
    again = False

    def run(entered: Tensor) -> Tensor:
        if not again:
            return segment(entered)
        # On copies of its buffers: running statistics must not move a second time.
        spare = {name: buffer.clone() for name, buffer in before.items()}
        return functional_call(segment, spare, (entered,))

    @contextmanager
    def second() -> Iterator[None]:
        nonlocal again
        again = True
        try:
            yield
        finally:
            again = False

    result: Tensor = checkpoint(run, h, use_reentrant=False, context_fn=lambda: (nullcontext(), second()))
    return result

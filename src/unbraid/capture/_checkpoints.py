"""Reentrant checkpoints, seen as what they compute.

`torch.utils.checkpoint(..., use_reentrant=True)` runs its function without gradients, and runs it again when a gradient
comes back. A tracer would write down the first run alone, and with it that no gradient passes, from there on to the end
of the model. What the model computes, forward and backward, is the function itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

from torch.utils.checkpoint import CheckpointFunction


@contextmanager
def plain_checkpoints() -> Iterator[None]:
    """Let reentrant checkpoints of this thread call their function as it is; those of other threads stay theirs."""
    thread, own = get_ident(), vars(CheckpointFunction).get("apply")
    before: Callable[..., Any] = CheckpointFunction.apply

    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args) if get_ident() == thread else before(function, preserve, *args)

    CheckpointFunction.apply = apply  # type: ignore[method-assign]
    try:
        yield
    finally:
        if own is None:
            del CheckpointFunction.apply
        else:
            CheckpointFunction.apply = own  # type: ignore[method-assign]

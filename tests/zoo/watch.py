"""Counts the additions of a real run, line by line of the model's code: a count that knows nothing of graphs."""

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zoo.entry import Made

_ADDITIONS: set[Callable[..., Any]] = {
    torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__,
    torch.sub, Tensor.sub, Tensor.__sub__,
}  # fmt: skip


class Watch(TorchFunctionMode):
    """Notes the line of every addition of two floating-point tensors of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _ADDITIONS and len(args) > 1 and all(isinstance(a, Tensor) for a in args[:2]):
            a, b = args[:2]
            if a.is_floating_point() and b.is_floating_point() and a.shape == b.shape and a.ndim:
                self.lines[_line()] += 1
        return func(*args, **(kwargs or {}))


def additions(made: Made) -> dict[str, int]:
    """How often each line of the model's code adds two float tensors of one shape."""
    with torch.no_grad(), Watch() as watch:
        made.model(*made.args, **made.kwargs)
    return dict(watch.lines)


def _line() -> str:
    frame = sys._getframe(2)
    while "/torch/" in frame.f_code.co_filename and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}"

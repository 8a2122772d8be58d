"""Notes at each operator of a trace the line of code that called it.

torch keeps of a call stack only the frames named `forward`. An addition in a method, a function or an attention
processor then has the line at which `forward` called it, and all additions there have one line. While `noting_lines`
is open, every operator called from Python gets the frames of the model's own code instead, the innermost last; so do
the operators that torch makes of it.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, no_type_check

import torch
from torch import Tensor
from torch.fx import traceback as notes
from torch.overrides import TorchFunctionMode

__all__ = ["is_model_code", "noting_lines"]

_TORCH = f"{Path(torch.__file__).parent}/"
_LAYERS = f"{_TORCH}nn/modules/"  # torch's own residual layers are models like any other
_CALLING = f"{_LAYERS}module.py"  # but for what calls all modules
_TRACING = f"{Path(__file__).parent}/"
# What the exporter asks of every parameter, over and over. None of it is an operator, so no line is looked for.
_QUESTIONS: frozenset[Any] = frozenset(
    [
        *(Tensor.is_conj, Tensor.is_inference, Tensor.is_neg, Tensor._is_view, Tensor.untyped_storage),
        *(Tensor.dim, Tensor.numel, Tensor.storage_offset, Tensor.stride),
        *(getattr(Tensor, name).__get__ for name in "device dtype grad is_leaf layout requires_grad".split()),
        *(getattr(Tensor, name).__get__ for name in "is_mkldnn is_nested is_quantized is_sparse".split()),
    ]
)


@contextmanager
def noting_lines() -> Iterator[None]:
    """Every operator that is traced meanwhile in this thread has its line in `stack_trace`."""
    with notes.preserve_node_meta(), _Lines():
        yield


@functools.cache
def is_model_code(file: str) -> bool:
    """Whether a line of this file can be one of a model: not torch's own, but for its layers, and not generated."""
    if file.startswith(_TORCH):
        return file.startswith(_LAYERS) and file != _CALLING
    return not file.startswith("<")


class _Lines(TorchFunctionMode):
    # Whoever calls this is the model, or torch on its behalf: no wrapper that checks types may stand between.
    @no_type_check
    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # torch.cond compiles its branches, and this function with them.
        if torch.compiler.is_dynamo_compiling() or func in _QUESTIONS:
            return func(*args, **(kwargs or {}))
        before = notes.current_meta.get("stack_trace")
        notes.current_meta["stack_trace"] = _stack(sys._getframe(1)) or before
        try:
            return func(*args, **(kwargs or {}))
        finally:
            notes.current_meta["stack_trace"] = before


def _stack(frame: FrameType | None) -> str:
    """The frames of the model's own code, as Python prints them, up to where the tracing began."""
    lines: list[str] = []
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_TRACING):
            if lines:
                break
        elif is_model_code(file):
            lines.append(f'  File "{file}", line {frame.f_lineno}, in {frame.f_code.co_name}\n')
        frame = frame.f_back
    return "".join(reversed(lines))

"""What torch's tracers do not write down of where gradients end, said in a way that they do: `detach` and `no_grad`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, no_type_check

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree


@contextmanager
def written_out() -> Iterator[None]:
    """Inside, `x.data` is `x.detach()`, torch.inference_mode is no_grad, and add(x, b, out=y) is y.copy_(add(x, b)).

    Of the first the exporter makes a constant; of the second no tracer keeps anything; the third torch refuses where
    gradients pass. To begin with, gradients are on.

    In the forward pass of a custom torch.autograd.Function gradients are off in any case, and come of its backward
    pass: a region of no_grad in there (a reversible block's, which computes its states anew) says nothing, and what the
    tracers would note at its end, that gradients are still off, would be wrong from there on.
    """
    with _inference_as_no_grad(), torch.enable_grad(), _Data(), _functions_unswitched():
        yield


@contextmanager
def _functions_unswitched() -> Iterator[None]:
    """What custom functions switch is written down by no tracer; for this thread alone."""
    thread, kind = threading.get_ident(), torch.autograd.Function
    usual = kind.__dict__["apply"]

    def applied(cls: Any, *args: Any, **kwargs: Any) -> Any:
        with _Unswitched() if threading.get_ident() == thread else nullcontext():
            return usual.__func__(cls, *args, **kwargs)

    kind.apply = classmethod(applied)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        kind.apply = usual  # type: ignore[method-assign]


class _Unswitched(TorchFunctionMode):
    """Switches gradients behind the back of the tracers' own modes, which stand around this one."""

    @no_type_check
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._C._set_grad_enabled:
            with torch._C.DisableTorchFunction():
                return func(*args)
        return func(*args, **(kwargs or {}))


class _Data(TorchFunctionMode):
    # torch.cond compiles this function with its branches: no wrapper that checks types may stand around it.
    @no_type_check
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == Tensor.data.__get__:  # a new object at each mention
            return args[0].detach()
        given = dict(kwargs or {})
        if "out" in given and _undifferentiable(args, given):
            result = func(*args, **{name: value for name, value in given.items() if name != "out"})
            out = given["out"]
            if out.shape != result.shape:  # torch gives it the sizes of the result
                with torch.no_grad():
                    func(*args, **given)
            return out.copy_(result)
        return func(*args, **given)


@no_type_check
def _undifferentiable(args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether torch would refuse a call with out=, because gradients are on and would have to pass."""
    out = kwargs.get("out")
    return (
        isinstance(out, Tensor)
        and torch.is_grad_enabled()
        and any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in pytree.tree_leaves((args, kwargs)))
    )


@contextmanager
def _inference_as_no_grad() -> Iterator[None]:
    """For this thread alone: another may run its own models meanwhile."""
    thread, kind = threading.get_ident(), torch.inference_mode
    enter, leave = kind.__enter__, kind.__exit__
    instead: dict[int, bool] = {}

    def entered(self: Any) -> None:
        if threading.get_ident() != thread:
            return enter(self)
        before = torch.is_grad_enabled()
        torch._C._set_grad_enabled(before and not self.mode)
        instead[id(self)] = before
        return None

    def left(self: Any, *error: Any) -> None:
        if id(self) not in instead:
            return leave(self, *error)
        torch._C._set_grad_enabled(instead.pop(id(self)))
        return None

    kind.__enter__, kind.__exit__ = entered, left  # type: ignore[method-assign]
    try:
        yield
    finally:
        kind.__enter__, kind.__exit__ = enter, leave  # type: ignore[method-assign]

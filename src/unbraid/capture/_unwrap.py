"""What is around a model and computes nothing itself, taken off; and tensors that autograd would refuse, replaced."""

import copy
import sys
from itertools import chain
from typing import Any

import torch
from torch import nn

from unbraid._modes import ordinary
from unbraid.errors import TraceError

# They hand a batch to copies of one module, on other devices or in other processes; on one device they call it.
_SPREADING = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_SCRIPTED = "it is compiled TorchScript, whose operators no tracer sees: trace the Python module that it was made from."


def bare(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The module that computes, and notes of what was taken off.

    A module that holds tensors made in inference mode, for which there is no gradient, comes as a copy that shares
    their memory, with tensors that have one.

    Raises:
        TraceError: it is no Python code, or its parameters have no sizes as yet.
    """
    notes = []
    while (inner := _inner(model)) is not None:
        notes.append(f"{type(model).__name__} was taken off: it computes what its module does, which was traced.")
        model = inner
    if isinstance(model, torch.jit.ScriptModule):
        raise TraceError(f"{type(model).__name__}: {_SCRIPTED}")
    for name, module in model.named_modules():
        if any(
            isinstance(tensor, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer)
            for tensor in _own(module)
        ):
            raise TraceError(
                f"{type(model).__name__}: {name!r} has parameters without sizes as yet: run the model once."
            )
    tensors = list(chain.from_iterable(map(_own, model.modules())))
    if any(tensor.is_inference() for tensor in tensors):
        notes.append("tensors made in torch.inference_mode have no gradient; the form has others, on their memory.")
        memo: dict[int, Any] = {id(tensor): ordinary(tensor) for tensor in tensors}
        model = copy.deepcopy(model, memo)
    return model, tuple(notes)


def _inner(model: nn.Module) -> nn.Module | None:
    """The module that another one calls, and nothing else."""
    dynamo = sys.modules.get("torch._dynamo")  # which takes seconds to import, and is there where anything is compiled
    inner: nn.Module | None = None
    if isinstance(model, _SPREADING):
        inner = model.module
    elif dynamo is not None and isinstance(model, dynamo.OptimizedModule):  # torch.compile(model)
        inner = model._orig_mod
    return inner


def untraceable(model: nn.Module) -> str | None:
    """Why no tracer can take a model, as far as its parts tell, and what to do; None where they tell nothing."""
    for name, module in model.named_modules():
        place = name or "the model itself"
        if isinstance(module, torch.jit.ScriptModule):
            return f"{place!r}: {_SCRIPTED}"
        if any(isinstance(value, torch.ScriptObject) for value in _attributes(module)) or any(
            tensor.is_quantized for tensor in _own(module)
        ):
            return (
                f"{place!r} has quantised weights, whose operators have no gradient: trace the model in floating "
                "point, before it is quantised."
            )
        other = [
            type(t).__name__ for t in _own(module) if hasattr(t, "__tensor_flatten__") or hasattr(t, "full_tensor")
        ]
        if other:
            return (
                f"{place!r} has parameters of the class {other[0]}, which stands for other tensors: trace the model "
                "with plain ones, before it is sharded, quantised or wrapped."
            )
    return None


def _own(module: nn.Module) -> list[torch.Tensor]:
    registered = (*module._parameters.values(), *module._buffers.values())
    return [tensor for tensor in (*registered, *vars(module).values()) if isinstance(tensor, torch.Tensor)]


def _attributes(module: nn.Module) -> list[Any]:
    """What a module holds, directly or inside what holds parameters for it."""
    return [*vars(module).values(), *module._modules.values()]

"""Call a model so that nothing of it changes, and see what came of it."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from unbraid.form import ResidualForm, relative_error

Call = tuple[tuple[Any, ...], Mapping[str, Any], Any]


def outputs(model: nn.Module | ResidualForm, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that a model returns: with copies of its buffers, and from one random state."""
    leaves = pytree.tree_leaves((args, kwargs))
    devices = [*{leaf.device for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_cuda}]
    with torch.no_grad(), torch.random.fork_rng(devices):
        torch.manual_seed(0)
        made = model(*args, **kwargs) if isinstance(model, ResidualForm) else _called(model, args, kwargs)
    return [leaf for leaf in pytree.tree_leaves(made) if isinstance(leaf, Tensor)]


def _called(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    # Parameters that ask for gradients trouble torch's counter of operations, even where none are computed.
    learned = {name: parameter.detach() for name, parameter in model.named_parameters(remove_duplicate=False)}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers(remove_duplicate=False)}
    return torch.func.functional_call(model, {**learned, **buffers}, args, dict(kwargs), tie_weights=False)


def distance(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest of the relative errors of the tensors; infinite where number or shapes differ."""
    if [tensor.shape for tensor in found] != [tensor.shape for tensor in wanted]:
        return float("inf")
    return max((relative_error(a, b) for a, b in zip(found, wanted, strict=True)), default=0.0)


def flops(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Floating point operations of one call, as torch counts them: those of matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        outputs(model, args, kwargs)
    return int(counter.get_total_flops())


def called(model: nn.Module, names: Iterable[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Call]:
    """Arguments and result of the first call of some modules; those that are not called are left out."""
    calls: dict[str, Call] = {}

    def note(name: str) -> Any:
        return lambda _, given, named, made: None if name in calls else calls.__setitem__(name, (given, named, made))

    with ExitStack() as stack:
        for name in names:
            handle = model.get_submodule(name).register_forward_hook(note(name), with_kwargs=True)
            stack.callback(handle.remove)
        outputs(model, args, kwargs)
    return calls

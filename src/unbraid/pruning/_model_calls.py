"""Call a model so that nothing of it changes, and see what came of it."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from unbraid.capture import Draws, drawing, untouched
from unbraid.form import ResidualForm
from unbraid.results import relative_error

Call = tuple[tuple[Any, ...], Mapping[str, Any], Any]


def outputs(model: nn.Module | ResidualForm, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that a model returns: nothing of it changes, and what is random is drawn from one seed."""
    draws = Draws.seeded(0)
    with torch.no_grad():
        if isinstance(model, ResidualForm):
            with drawing(draws):
                result = model(*args, **kwargs)
        else:
            result = _called(model, args, kwargs, draws)
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def _called(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], draws: Draws) -> Any:
    # Parameters that ask for gradients trouble torch's counter of operations, even where none are computed.
    learned = {name: parameter.detach() for name, parameter in model.named_parameters(remove_duplicate=False)}
    with untouched(model, args, kwargs) as aside, aside.drawing(draws):
        result = torch.func.functional_call(model, learned, args, dict(kwargs), tie_weights=False)
        return pytree.tree_map_only(Tensor, aside.own, result)


def distance(results: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest of the relative errors of the tensors; infinite where number or shapes differ."""
    if [tensor.shape for tensor in results] != [tensor.shape for tensor in wanted]:
        return float("inf")
    return max((relative_error(a, b) for a, b in zip(results, wanted, strict=True)), default=0.0)


def flops(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Floating point operations of one call, as torch counts them: those of matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        outputs(model, args, kwargs)
    return int(counter.get_total_flops())


def called(model: nn.Module, names: Iterable[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Call]:
    """Arguments and result of the first call of some modules; those that are not called are left out."""
    calls: dict[str, Call] = {}

    def note(name: str) -> Any:
        return lambda _, given, named, result: (
            None if name in calls else calls.__setitem__(name, (given, named, result))
        )

    with ExitStack() as stack:
        for name in names:
            handle = model.get_submodule(name).register_forward_hook(note(name), with_kwargs=True)
            stack.callback(handle.remove)
        outputs(model, args, kwargs)
    return calls

"""Models without memory for weights: made without them, and traced without them.

`device="meta"` traces a copy whose tensors are on meta, made by handing `deepcopy` the empty tensors beforehand, so
that nothing is copied; the form keeps the model's own buffers, for no file may have them.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from unbraid.capture.trees import mapped_tensors


@contextmanager
def empty_weights() -> Iterator[None]:
    """Inside, modules are made without memory for their parameters; buffers are computed as ever.

    A model made under `torch.device("meta")` has no values for the buffers that no file holds, such as the frequencies
    of rotary positions; one made here has.

        with unbraid.empty_weights():
            model = LlamaForCausalLM(config).eval()
        form = unbraid.trace(model, ids, device="meta").with_weights(folder, stream=True)
    """
    hook = register_module_parameter_registration_hook(_emptied)  # type: ignore[arg-type]  # it may return one
    try:
        yield
    finally:
        hook.remove()


def on_meta(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """A copy of a model and its inputs on the meta device; none of the model's tensors is copied."""
    memo: dict[int, Any] = {id(tensor): _empty(tensor) for tensor in _held(model)}
    moved = mapped_tensors(lambda tensor: tensor.to("meta"), (args, dict(kwargs)))
    return copy.deepcopy(model, memo), *moved


def computed(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a model traced on the meta device: parameters without values, all else as the model has it."""
    learned = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = dict(tensors_of(model))
    return {
        name: tensor if name in learned else buffers.get(name, _attribute(model, name, tensor)).detach()
        for name, tensor in state.items()
    }


def _emptied(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
    return None if parameter is None or parameter.is_meta else _empty(parameter)


def _empty(tensor: Tensor) -> Any:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _held(model: nn.Module) -> list[Tensor]:
    """Parameters, buffers, and tensors that are plain attributes."""
    attributes = chain.from_iterable(vars(module).values() for module in model.modules())
    plain = [value for value in attributes if isinstance(value, Tensor)]
    return [*(tensor for _, tensor in tensors_of(model)), *plain]


def _attribute(model: nn.Module, name: str, traced: Tensor) -> Tensor:
    """A tensor that is a plain attribute; one that the model's code makes is what the trace has."""
    path, _, last = name.rpartition(".")
    try:
        value = vars(model.get_submodule(path)).get(last)
    except AttributeError:
        return traced
    return value if isinstance(value, Tensor) else traced


def tied(model: nn.Module | None) -> tuple[tuple[str, ...], ...]:
    """Groups of names of one tensor."""
    groups: dict[int, list[str]] = {}
    for name, tensor in tensors_of(model) if model is not None else ():
        groups.setdefault(id(tensor), []).append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def tensors_of(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers under all their names."""
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]

"""Whether networks are of one architecture: the same modules with the same settings, whatever their weights."""

from collections.abc import Iterator, Sequence
from types import BuiltinFunctionType, FunctionType

import torch
from torch import Tensor, nn

__all__ = ["Constants", "differing_constants"]

# By "blocks.0.scale.value": one number for each network.
Constants = dict[str, list[float]]

_COMPARED = (bool, int, float, str, tuple, list, type(None), torch.dtype, FunctionType, BuiltinFunctionType)


def differing_constants(networks: Sequence[nn.Module]) -> Constants:
    """The float attributes of modules in which the networks differ, such as the constants of fixed scales.

    Everything else must agree: the modules, their settings, the names, shapes and types of parameters and buffers.

    Raises:
        ValueError: where something else differs; the first such place is named.
    """
    first, *others = networks
    modules = dict(first.named_modules())
    constants: Constants = {}
    for number, other in enumerate(others, 1):
        twins = dict(other.named_modules())
        if modules.keys() != twins.keys():
            raise _refusal(number, _only(modules, twins), "is there", "is not there")
        for name, module in modules.items():
            for what, ours, theirs in _differences(module, twins[name]):
                place = f"{name}.{what}" if name else what
                if not (isinstance(ours, float) and isinstance(theirs, float)):
                    raise _refusal(number, place, ours, theirs)
                constants.setdefault(place, [])
    for place in constants:
        path, _, attribute = place.rpartition(".")
        constants[place] = [vars(network.get_submodule(path))[attribute] for network in networks]
    return constants


def _differences(module: nn.Module, other: nn.Module) -> Iterator[tuple[str, object, object]]:
    """What differs between two modules at the same place, their children apart: name and both values."""
    if type(module) is not type(other):
        yield "class", type(module).__name__, type(other).__name__
        return
    yield from _unequal(_tensors(module), _tensors(other))
    yield from _unequal(_settings(module), _settings(other))


def _unequal(ours: dict[str, object], theirs: dict[str, object]) -> Iterator[tuple[str, object, object]]:
    for name in ours | theirs:
        if ours.get(name) != theirs.get(name):
            yield name, ours.get(name), theirs.get(name)


def _tensors(module: nn.Module) -> dict[str, object]:
    """Shape, type and whether it is trained, of each parameter and buffer of the module itself."""
    own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return {name: (*tensor.shape, str(tensor.dtype), _trained(tensor)) for name, tensor in own}


def _trained(tensor: Tensor) -> str:
    return "trained" if tensor.requires_grad else "not trained"


def _settings(module: nn.Module) -> dict[str, object]:
    # What begins with an underscore belongs to nn.Module; `training` is set by the loop.
    values = {name: value for name, value in vars(module).items() if name[0] != "_" and name != "training"}
    return {name: value for name, value in values.items() if isinstance(value, _COMPARED)}


def _only(ours: dict[str, nn.Module], theirs: dict[str, nn.Module]) -> str:
    """The first module that only one of the two has."""
    return next(name for name in (*ours, *theirs) if name not in ours or name not in theirs)


def _refusal(number: int, place: str, ours: object, theirs: object) -> ValueError:
    return ValueError(
        "train_many: the networks must be of one architecture; they may differ in weights and in constants such as "
        f"scales. Network 0 and network {number} differ at {place}: {ours} and {theirs}. "
        "Train them in calls of their own."
    )

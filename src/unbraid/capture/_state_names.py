"""The tensors of a model under all their names; one tensor may have several, and is then *tied*."""

from torch import Tensor, nn


def tied(model: nn.Module | None) -> tuple[tuple[str, ...], ...]:
    """Groups of names of one tensor."""
    groups: dict[int, list[str]] = {}
    for name, tensor in tensors_of(model) if model is not None else ():
        groups.setdefault(id(tensor), []).append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def tensors_of(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers under all their names."""
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]

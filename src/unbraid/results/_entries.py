"""Targets by index: one entry of each example's output, or several, whatever the caller calls them by."""

from collections.abc import Mapping
from operator import index as as_index
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unbraid.errors import TargetError

_FORMS = (
    "  A target is a class (an int, or a tensor [batch] of them) for an output [batch, classes]; a pair (position, "
    "class), each an int or a tensor [batch], for an output [batch, positions, classes]; a list of these, one for each "
    "example; or a function of what the model returns that gives a tensor [batch]."
)
_SHOWN = 16  # indices that a message writes out


def picked(output: Tensor, target: Any) -> Tensor:
    """The entry of each example, [batch]; see `Target`."""
    if isinstance(target, tuple):
        return _entry(output, target)
    if isinstance(target, list):
        return _each(output, target)
    if output.ndim != 2:
        raise TargetError(
            f"target: a class index needs an output [batch, classes], and this one is {list(output.shape)}. "
            "Give a pair (position, class), or a function of the output."
        )
    classes = _indices(target, output.device)
    if classes.shape not in _for_each(output) or not _within(classes, output.shape[1]):
        raise TargetError(
            f"target: class indices must be one int or a tensor [{len(output)}] with values below {output.shape[1]}; "
            f"{_shown(classes)} came.\n{_FORMS}"
        )
    return output.gather(1, (classes % output.shape[1]).expand(len(output))[:, None])[:, 0]


def _each(output: Tensor, targets: list[Any]) -> Tensor:
    """A target of its own for every example."""
    if len(targets) != len(output):
        raise TargetError(f"target: a list holds one for each of the {len(output)} examples; it has {len(targets)}.")
    if any(isinstance(target, list) or callable(target) for target in targets):
        wrong = next(target for target in targets if isinstance(target, list) or callable(target))
        raise TargetError(
            "target: a list holds a class, or a pair (position, class), for each example; it holds "
            f"{described(wrong)}.\n{_FORMS}"
        )
    return torch.cat([picked(output[k : k + 1], target) for k, target in enumerate(targets)])


def _entry(output: Tensor, pair: tuple[Any, ...]) -> Tensor:
    if len(pair) != 2:
        raise TargetError(
            f"target: a tuple is a pair (position, class); {pair} came, a tuple of {len(pair)}.\n{_FORMS}"
        )
    if output.ndim != 3:
        raise TargetError(
            f"target: a pair (position, class) needs an output [batch, positions, classes], and this one is "
            f"{list(output.shape)}."
        )
    batch, positions, classes = output.shape
    position, chosen = (_indices(part, output.device) for part in pair)
    for part, indices in (("position", position), ("class", chosen)):
        if indices.shape not in _for_each(output):
            raise TargetError(
                f"target: the {part} of a pair is one int or a tensor [{batch}], one for each example; a tensor "
                f"{list(indices.shape)} came.\n{_FORMS}"
            )
    if not (_within(position, positions) and _within(chosen, classes)):
        raise TargetError(
            f"target: position {_shown(position)} and class {_shown(chosen)} must lie within {positions} positions and "
            f"{classes} classes."
        )
    rows = torch.arange(batch, device=output.device)
    return output[rows, (position % positions).expand(batch), (chosen % classes).expand(batch)]


def _for_each(output: Tensor) -> tuple[torch.Size, torch.Size]:
    """The sizes of one index for all examples, and of one for each."""
    return torch.Size([]), output.shape[:1]


def _indices(target: Any, device: torch.device) -> Tensor:
    """Whole numbers as a tensor."""
    if isinstance(target, np.ndarray):
        target = torch.from_numpy(target)
    if not isinstance(target, Tensor):
        try:
            whole = None if isinstance(target, bool | np.bool_) else as_index(target)
        except TypeError:
            whole = None
        if whole is None:
            raise TargetError(f"target: an index is a whole number; {target!r} came.\n{_FORMS}")
        return torch.tensor(whole, device=device)
    if target.is_floating_point() or target.is_complex() or target.dtype is torch.bool:
        raise TargetError(
            f"target: indices are whole numbers; {described(target)} came. Convert it with .long(), or a mask with "
            f".nonzero().\n{_FORMS}"
        )
    return target.to(device, torch.int64)


def _within(chosen: Tensor, size: int) -> bool:
    return bool(((chosen >= -size) & (chosen < size)).all())


def _shown(chosen: Tensor) -> str:
    values = chosen.tolist()
    return (
        str(values)
        if chosen.numel() <= _SHOWN
        else f"a tensor {list(chosen.shape)} from {chosen.min()} to {chosen.max()}"
    )


def described(value: Any) -> str:
    """What a value is, in a few words: sizes of tensors, names of structured outputs."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with {', '.join(map(str, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"

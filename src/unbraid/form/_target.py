"""What a target is: one number for each example of what a model returns.

Index targets pick entries of the explained tensor; a function receives what the model returns, of the model's own
class. Everything that a caller can get wrong is told here, in one kind of error.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import index as as_index
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from unbraid.errors import TargetError
from unbraid.form._trees import leaves_of

if TYPE_CHECKING:
    # One class or position for all examples, or one for each of them.
    Index: TypeAlias = int | Tensor
    Pair: TypeAlias = tuple[Index, Index]

    # What to explain, per example: class indices; a (position, class) pair, of which each is an int or a tensor
    # [batch]; a list of these, one for each example; or a function of what the model returns. As in captum.
    Target: TypeAlias = Index | Pair | Sequence[Index] | Sequence[Pair] | Callable[[Any], Tensor]
else:
    Target = Any  # what does not fit is told by `target_of`, and not by who checks types at run time

_FORMS = (
    "  A target is a class (an int, or a tensor [batch] of them) for an output [batch, classes]; a pair (position, "
    "class), each an int or a tensor [batch], for an output [batch, positions, classes]; a list of these, one for each "
    "example; or a function of what the model returns that gives a tensor [batch]."
)
_SHOWN = 16  # indices that a message writes out


@dataclass(frozen=True)
class OfTensor:
    """A target, or a loss, that reads the explained tensor alone, whatever the model returns around it.

    Attributes:
        function: of that tensor.
    """

    function: Callable[[Tensor], Tensor]

    def __call__(self, returned: Any) -> Tensor:
        """The function at the first floating-point tensor of what a model returns."""
        return self.function(first_float(returned))


def loss_target(loss: Callable[[Any, Any], Tensor], labels: Any) -> Target:
    """A loss of what the model returns with labels, as a target; unbraid's own reads the explained tensor alone."""
    if loss is classification_loss:
        return OfTensor(lambda output: classification_loss(output, labels))
    return lambda returned: loss(returned, labels)


def scalar(output: Tensor, target: Target) -> Float[Tensor, " batch"]:
    """The target of an output that is a tensor, one number per example.

    Raises:
        TargetError: the target does not fit the output; it says which form would.
    """
    return target_of(output, output, target)


def target_of(returned: Any, explained: Tensor, target: Target, counts: tuple[int, ...] = ()) -> Tensor:
    """The target of what a model returns, one number per example.

    Args:
        returned: what the model returns: a function receives this.
        explained: the tensor of it that indices pick from.
        target: see `Target`.
        counts: how many examples there may be, besides the length of the explained tensor: the lengths of other
            outputs, and where one does not begin with the batch, the sizes of its other free dimensions.

    Raises:
        TargetError: the target does not fit; it says what arrived, and which form would.
    """
    if isinstance(target, OfTensor) or target is largest:
        read = target.function if isinstance(target, OfTensor) else largest
        return _one_each(_called(read, explained), explained, counts)
    if callable(target) and not isinstance(target, Tensor):
        return _one_each(_called(target, returned), explained, counts)
    return _picked(explained, target)


def constant() -> TargetError:
    """A target of which no gradient exists."""
    return TargetError(
        "target: it must be a differentiable function of the output, and this one is constant: it does not depend on "
        "any floating-point tensor that the model computes from its inputs, or it was detached."
    )


def classification_loss(output: Any, labels: Any) -> Float[Tensor, " batch"]:
    """The cross-entropy of class scores with labels, one number per example, averaged over an example's positions.

    Args:
        output: scores, [batch, classes] or [batch, *positions, classes]; of another output its first floating-point
            tensor.
        labels: the classes, [batch] or [batch, *positions].

    Raises:
        TargetError: the labels do not fit the scores.
    """
    output = first_float(output)
    if not isinstance(labels, Tensor) or output.ndim < 2 or labels.shape != output.shape[:-1]:
        came = list(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise TargetError(
            f"loss: the cross-entropy takes scores [batch, *positions, classes] and labels [batch, *positions]; the "
            f"output is {list(output.shape)} and the labels are {came}. Give loss=, a function (what the model "
            "returns, labels) -> [batch]."
        )
    each = cross_entropy(output.flatten(0, -2), labels.flatten(), reduction="none")
    return each.reshape(len(output), -1).mean(1)


def largest(output: Float[Tensor, "batch *rest"]) -> Float[Tensor, " batch"]:
    """The largest output of each example: what to explain where nobody said; at the last of several positions."""
    output = first_float(output)
    rows = output[:, -1] if output.ndim == 3 else output
    return rows.reshape(len(output), -1).max(dim=1).values


def first_float(returned: Any) -> Tensor:
    """The first floating-point tensor of what a model returns.

    Raises:
        TargetError: there is none.
    """
    for leaf in leaves_of(returned):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return leaf
    raise TargetError(f"target: {described(returned)} holds no floating-point tensor, so there is nothing to explain.")


def described(value: Any) -> str:
    """What a value is, in a few words: sizes of tensors, names of structured outputs."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with {', '.join(map(str, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _called(target: Callable[[Any], Any], returned: Any) -> Any:
    """A caller's own function; what it raises is told with what it received."""
    try:
        return target(returned)
    except TargetError:
        raise
    except Exception as error:
        raise TargetError(
            f"target: the function raised {type(error).__name__}: {error}\n"
            f"  It receives what the model returns, here {described(returned)}."
        ) from error


def _one_each(values: Any, explained: Tensor, counts: tuple[int, ...]) -> Tensor:
    number = len(explained) if explained.ndim else next(iter(counts), 1)
    if not isinstance(values, Tensor):
        raise TargetError(
            f"target: it must give one number per example, a tensor [{number}]; it gave {described(values)}."
        )
    if values.ndim != 1 or len(values) not in {number, *counts}:
        raise TargetError(
            f"target: it must give one number per example, a tensor [{number}]; it gave {list(values.shape)} for an "
            f"output {list(explained.shape)}."
        )
    if not values.is_floating_point():
        raise TargetError(
            "target: it must give floating-point numbers, of which a gradient exists; it gave "
            f"{str(values.dtype).removeprefix('torch.')}."
        )
    return values


def _picked(output: Tensor, target: Any) -> Tensor:
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
    return torch.cat([_picked(output[k : k + 1], target) for k, target in enumerate(targets)])


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

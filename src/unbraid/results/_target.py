"""What a target is: one number for each example of what a model returns.

Index targets pick entries of the explained tensor; a function receives what the model returns, of the model's own
class. Everything that a caller can get wrong is told here, in one kind of error.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from unbraid.capture.trees import leaves_of
from unbraid.errors import TargetError
from unbraid.results._entries import described, picked

if TYPE_CHECKING:
    # One class or position for all examples, or one for each of them.
    Index: TypeAlias = int | Tensor
    Pair: TypeAlias = tuple[Index, Index]

    # What to explain, per example: class indices; a (position, class) pair, of which each is an int or a tensor
    # [batch]; a list of these, one for each example; or a function of what the model returns. As in captum.
    Target: TypeAlias = Index | Pair | Sequence[Index] | Sequence[Pair] | Callable[[Any], Tensor]
else:
    Target = Any  # what does not fit is told by `target_of`, and not by who checks types at run time


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
    return picked(explained, target)


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

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

# What to explain, per example: class indices, a (position, class) pair, one of these for each example as a list, or a
# function of the output. Indices read as in captum.
Target: TypeAlias = int | Tensor | tuple[int, int] | list[int] | list[tuple[int, int]] | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """A scalar per example, linearised at an output: target(o) ≈ ⟨cotangent, o⟩ + remainder.

    Attributes:
        values: the scalar itself, [batch].
        cotangent: its gradient with respect to the output, [batch, ...].
        remainder: values − ⟨cotangent, output⟩ per example, [batch]: 0 where the target is linear.
    """

    values: Tensor
    cotangent: Tensor
    remainder: Tensor


def objective(output: Tensor, target: Target) -> Objective:
    """Evaluate and linearise a target at an output.

    Args:
        output: the model's output, [batch, classes] or [batch, positions, classes] for indices.
        target: class indices (one int, or a tensor [batch]) on [batch, classes]; a pair (position, class) on [batch,
            positions, classes]; a list of either, one for each example; or a function output -> [batch], a loss per
            example, say.

    Raises:
        ValueError: the target does not fit the output; it says which form would.
    """
    leaf = output.detach().requires_grad_()
    with torch.enable_grad():
        values = scalar(leaf, target)
        if not values.requires_grad:
            raise ValueError("target: it must be a differentiable function of the output, and this one is constant.")
        (cotangent,) = torch.autograd.grad(values.sum(), leaf)
    linear = (cotangent * leaf.detach()).reshape(len(output), -1).sum(1)
    return Objective(values.detach(), cotangent, values.detach() - linear)


def scalar(output: Tensor, target: Target) -> Float[Tensor, " batch"]:
    """The target of an output, one number per example.

    Raises:
        ValueError: the target does not fit the output; it says which form would.
    """
    values = _pick(output, target)
    if values.shape != output.shape[:1]:
        raise ValueError(
            f"target: it must give one number per example, a tensor [{len(output)}]; "
            f"it gave {list(values.shape)} for an output {list(output.shape)}."
        )
    return values


def classification_loss(output: Tensor, labels: Tensor) -> Float[Tensor, " batch"]:
    """The cross-entropy of class scores with labels, one number per example, averaged over an example's positions.

    Args:
        output: scores, [batch, classes] or [batch, *positions, classes].
        labels: the classes, [batch] or [batch, *positions].

    Raises:
        ValueError: the labels do not fit the scores.
    """
    if not isinstance(labels, Tensor) or output.ndim < 2 or labels.shape != output.shape[:-1]:
        came = list(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(
            f"loss: the cross-entropy takes scores [batch, *positions, classes] and labels [batch, *positions]; the "
            f"output is {list(output.shape)} and the labels are {came}. Give loss=, a function (output, labels) -> "
            "[batch]."
        )
    each = cross_entropy(output.flatten(0, -2), labels.flatten(), reduction="none")
    return each.reshape(len(output), -1).mean(1)


def largest(output: Float[Tensor, "batch *rest"]) -> Float[Tensor, " batch"]:
    """The largest output of each example: what to explain where nobody said; at the last of several positions."""
    rows = output[:, -1] if output.ndim == 3 else output
    return rows.reshape(len(output), -1).max(dim=1).values


def _pick(output: Tensor, target: Target) -> Tensor:
    if isinstance(target, tuple):
        return _entry(output, target)
    if isinstance(target, list):
        return _each(output, target)
    if callable(target):
        return target(output)
    if output.ndim != 2:
        raise ValueError(
            f"target: a class index needs an output [batch, classes], and this one is {list(output.shape)}. "
            "Give a pair (position, class), or a function of the output."
        )
    index = torch.as_tensor(target, device=output.device)
    wrong = index[(index < -output.shape[1]) | (index >= output.shape[1])]
    if wrong.numel() or (index.ndim and index.shape != output.shape[:1]):
        raise ValueError(
            f"target: class indices must be one int or a tensor [{len(output)}] with values below {output.shape[1]}; "
            f"{index.tolist()} came."
        )
    return output.gather(1, (index % output.shape[1]).expand(len(output))[:, None])[:, 0]


def _each(output: Tensor, targets: list[int] | list[tuple[int, int]]) -> Tensor:
    """A target of its own for every example."""
    if len(targets) != len(output):
        raise ValueError(f"target: a list holds one for each of the {len(output)} examples; it has {len(targets)}.")
    each: list[int | tuple[int, int]] = [*targets]
    return torch.cat([_pick(output[k : k + 1], target) for k, target in enumerate(each)])


def _entry(output: Tensor, pair: tuple[int, int]) -> Tensor:
    if output.ndim != 3:
        raise ValueError(
            f"target: a pair (position, class) needs an output [batch, positions, classes], and this one is "
            f"{list(output.shape)}."
        )
    position, index = pair
    if not (-output.shape[1] <= position < output.shape[1] and -output.shape[2] <= index < output.shape[2]):
        raise ValueError(
            f"target: position {position} and class {index} must lie within {output.shape[1]} positions and "
            f"{output.shape[2]} classes."
        )
    return output[:, position, index]

"""Gradients that a backward pass accumulates by itself, in parameters, while others are asked for.

A reversible block keeps no activations: its backward pass computes its states anew and calls `backward` on its parts.
What its parameters are given so stands in their `grad`, and torch.autograd.grad returns nothing for them. It is part of
the model's gradient, and must not stay with the user's parameters.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor


@contextmanager
def gradients_aside(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Inside, parameters have accumulated nothing yet; afterwards, what they had before."""
    before = [(parameter, parameter.grad) for parameter in parameters]
    forget_gradients(parameter for parameter, _ in before)
    try:
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient


def forget_gradients(parameters: Iterable[Tensor]) -> None:
    """Let parameters have accumulated nothing."""
    for parameter in parameters:
        parameter.grad = None


def with_accumulated(leaves: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients that were asked for, and what was accumulated beside them."""
    return [_sum(gradient, leaf.grad) for leaf, gradient in zip(leaves, gradients, strict=True)]


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other

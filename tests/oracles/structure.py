"""Gradients by path length from marks alone: an oracle for structure that knows nothing of unbraid.

    h ← h + mark(f(h))        forward: the identity;  backward: g ← t·g

Every branch's output is marked, by the generator of a model or by a hook on a module that the model's source names. The
gradient is then a polynomial in t, ∂y/∂x = Σ_m t^m · (all paths that pass m marks), so its values at L + 1 points give
the gradient of each length. A sum over paths equals the gradient even where a block was missed; these do not.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from networks import F64


class Marks:
    """Marks tensors; how many were marked in a run is an upper bound on the length of a path."""

    def __init__(self) -> None:
        self.t = 1.0
        self.met = 0

    def __call__(self, value: Tensor) -> Tensor:
        self.met += 1
        return _Mark.apply(value, self)


class _Mark(torch.autograd.Function):
    """t is read on the way back, so one forward run serves all values of t."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, marks: Marks) -> Tensor:
        ctx.marks = marks
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.marks.t * gradient, None


def at_points(marks: Marks, scalar: Tensor, leaf: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """most + 1 values of t, and the gradient of a scalar at each: [most + 1], [most + 1, *leaf], in float64.

    The points are Chebyshev's: of all in [−1, 1] they lose the fewest digits on the way from values to coefficients,
    one for every two or three of them.
    """
    points = torch.cos((2 * torch.arange(most + 1, dtype=F64) + 1) * (torch.pi / (2 * most + 2)))
    values = []
    for t in points.tolist():
        marks.t = t
        (gradient,) = torch.autograd.grad(scalar, leaf, retain_graph=True, allow_unused=True)
        values.append(torch.zeros_like(leaf, dtype=F64) if gradient is None else gradient.to(F64))
    return points, torch.stack(values)


def by_length(marks: Marks, scalar: Tensor, leaf: Tensor) -> Tensor:
    """The gradient of a scalar by path length, [marks + 1, *leaf], by interpolation."""
    points, values = at_points(marks, scalar, leaf, marks.met)
    powers = torch.linalg.vander(points, N=len(points))
    return torch.linalg.solve(powers, values.flatten(1)).view(values.shape)


def evaluated(coefficients: Tensor, points: Tensor) -> Tensor:
    """A polynomial with these coefficients at these points: the other way to compare, which loses no digits."""
    powers = torch.linalg.vander(points, N=len(coefficients))
    return (powers @ coefficients.to(F64).flatten(1)).view(len(points), *coefficients.shape[1:])


@contextmanager
def marked(modules: Iterable[nn.Module], marks: Marks) -> Iterator[None]:
    """Hooks that mark what some modules return: of a tuple its first part."""

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        return (marks(output[0]), *output[1:]) if isinstance(output, tuple) else marks(output)

    with _hooked(modules, hook):
        yield


@contextmanager
def begun(module: nn.Module, leaves: list[Tensor]) -> Iterator[None]:
    """A hook that cuts the graph at what a module returns and notes it: an embedding's output as the source."""

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    with _hooked([module], hook):
        yield


class Widened(TorchFunctionMode):
    """A model in float64 without the casts to float32 of its norms and soft-maxes: exact to the last digits."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        wide = [F64 if value is torch.float32 else value for value in args]
        named = {name: F64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
        return torch.Tensor.double(args[0]) if func is torch.Tensor.float else func(*wide, **named)


@contextmanager
def _hooked(modules: Iterable[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in dict.fromkeys(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def departure(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖∞ / ‖expected‖∞ over all lengths at once; a length that one lacks is zero there."""
    count = max(len(found), len(expected))
    padded = [torch.cat([a.to(F64), a.new_zeros(count - len(a), *a.shape[1:], dtype=F64)]) for a in (found, expected)]
    return float((padded[0] - padded[1]).abs().max() / padded[1].abs().max())

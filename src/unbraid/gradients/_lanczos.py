"""Extreme singular values of a Jacobian that is too large to be written out, from products with vectors."""

from collections.abc import Callable

import torch
from torch import Tensor


def extreme_singular_values(
    push: Callable[[Tensor], Tensor], pull: Callable[[Tensor], Tensor], like: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """The largest and the smallest singular value of J for each example, without J.

    Golub-Kahan-Lanczos bidiagonalisation with full reorthogonalisation: after n steps J V = U B with orthonormal U, V
    and a bidiagonal B, whose singular values lie within those of J and approach the extreme ones first (Golub and Van
    Loan, *Matrix Computations*, section 10.4). It stops early where the space is used up, and is then exact.

    Args:
        push: J v for a batch of vectors, examples apart.
        pull: J^T u.
        like: a tensor of the shape of v, [batch, ...].
        steps: n.

    Returns:
        Two tensors [batch]: the largest, and an upper bound of the smallest.
    """
    batch = len(like)
    generator = torch.Generator().manual_seed(0)
    v = _unit(torch.randn(like.shape, generator=generator, dtype=torch.float64, device="cpu").to(like))
    right, left = [v], list[Tensor]()
    diagonal, above = list[Tensor](), list[Tensor]()
    dimension = like[0].numel()
    for step in range(min(steps, dimension)):
        u = push(right[-1])
        if left:
            u = u - _times(above[-1], left[-1])
        u = _orthogonal(u, left)
        diagonal.append(_norm(u))
        left.append(_unit(u))
        if step + 1 == min(steps, dimension):
            break
        v = _orthogonal(pull(left[-1]) - _times(diagonal[-1], right[-1]), right)
        above.append(_norm(v))
        if bool((above[-1] <= 1e-12 * diagonal[0]).all()):
            above.pop()
            break
        right.append(_unit(v))
    count = len(diagonal)
    bidiagonal = torch.zeros(batch, count, count, dtype=torch.float64, device=like.device)
    for k in range(count):
        bidiagonal[:, k, k] = diagonal[k]
        if k < len(above):
            bidiagonal[:, k, k + 1] = above[k]
    values = torch.linalg.svdvals(bidiagonal)
    return values[:, 0], values[:, -1]


def _norm(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1).double().norm(dim=1)


def _times(scale: Tensor, x: Tensor) -> Tensor:
    return scale.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) * x


def _unit(x: Tensor) -> Tensor:
    norm = _norm(x)
    return _times(torch.where(norm > 0, 1 / norm.clamp_min(1e-300), torch.zeros_like(norm)), x)


def _orthogonal(x: Tensor, basis: list[Tensor]) -> Tensor:
    """Orthogonal to a basis; twice, as once leaves rounding behind."""
    for _ in range(2):
        for vector in basis:
            along = (x * vector).reshape(len(x), -1).sum(1)
            x = x - _times(along, vector)
    return x

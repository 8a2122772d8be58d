"""Ways to write skip + branch_1 + ... + branch_n, all of which mean one block of n branches."""

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

Spelling = Callable[[Tensor, list[Tensor]], Tensor]


def left(s: Tensor, b: list[Tensor]) -> Tensor:
    return reduce(lambda total, f: total + f, b, s)


def branches_first(s: Tensor, b: list[Tensor]) -> Tensor:
    return reduce(lambda total, f: total + f, b) + s


def right(s: Tensor, b: list[Tensor]) -> Tensor:
    return s + reduce(lambda total, f: f + total, reversed(b))


def between(s: Tensor, b: list[Tensor]) -> Tensor:
    return left(b[0] + s, b[1:])


def function(s: Tensor, b: list[Tensor]) -> Tensor:
    return reduce(torch.add, b, s)


def alpha(s: Tensor, b: list[Tensor]) -> Tensor:
    return reduce(lambda total, f: torch.add(total, f * 0.5, alpha=2), b, s)


def minus(s: Tensor, b: list[Tensor]) -> Tensor:
    return reduce(lambda total, f: total - (-f), b, s)


def reversed_minus(s: Tensor, b: list[Tensor]) -> Tensor:
    return reduce(lambda total, f: torch.rsub(-f, total), b, s)


def negated(s: Tensor, b: list[Tensor]) -> Tensor:
    return -reduce(lambda total, f: total - f, b, -s)


def in_place(s: Tensor, b: list[Tensor]) -> Tensor:
    total = s.clone()
    for f in b:
        total += f
    return total


def method(s: Tensor, b: list[Tensor]) -> Tensor:
    total = b[0].clone()
    for f in b[1:]:
        total.add_(f)
    return total.add_(s)


def in_a_slice(s: Tensor, b: list[Tensor]) -> Tensor:
    """The last feature passes by."""
    total = s.clone()
    for f in b:
        total[..., :-1] += f[..., :-1]
    return total


def set_slice(s: Tensor, b: list[Tensor]) -> Tensor:
    total = s.clone()
    total[..., 1:] = left(total[..., 1:], [f[..., 1:] for f in b])
    return total


def in_a_view(s: Tensor, b: list[Tensor]) -> Tensor:
    total = s.clone(memory_format=torch.contiguous_format)
    flat = total.view(-1)
    for f in b:
        flat.add_(f.reshape(-1))
    return total


def turned(s: Tensor, b: list[Tensor]) -> Tensor:
    return left(s.transpose(0, -1), [f.transpose(0, -1) for f in b]).transpose(0, -1)


def widened(s: Tensor, b: list[Tensor]) -> Tensor:
    return left(s.double(), [f.double() for f in b]).to(s.dtype)


def builtin(s: Tensor, b: list[Tensor]) -> Tensor:
    return sum([s, *b])


def stacked(s: Tensor, b: list[Tensor]) -> Tensor:
    return torch.stack([s, *b]).sum(0)


def averaged(s: Tensor, b: list[Tensor]) -> Tensor:
    return torch.stack([*b, s], -1).mean(-1) * (len(b) + 1)


def concatenated(s: Tensor, b: list[Tensor]) -> Tensor:
    return torch.cat([f[None] for f in (s, *b)]).sum(0)


def addcmul(s: Tensor, b: list[Tensor]) -> Tensor:
    return reduce(lambda total, f: torch.addcmul(total, f, torch.ones_like(f)), b, s)


def addcdiv(s: Tensor, b: list[Tensor]) -> Tensor:
    return reduce(lambda total, f: torch.addcdiv(total, f, torch.ones_like(f)), b, s)


def lerp(s: Tensor, b: list[Tensor]) -> Tensor:
    return reduce(lambda total, f: torch.lerp(total * 2, f * 2, 0.5), b, s)


def addmm(s: Tensor, b: list[Tensor]) -> Tensor:
    eye = torch.eye(s.shape[-1], dtype=s.dtype)
    rows = [f.reshape(-1, f.shape[-1]) for f in (s, *b)]
    return reduce(lambda total, f: torch.addmm(total, f, eye), rows[1:], rows[0]).view(s.shape)


def index_add(s: Tensor, b: list[Tensor]) -> Tensor:
    return reduce(lambda total, f: total.index_add(-1, torch.arange(f.shape[-1]), f), b, s)


def scaled(s: Tensor, b: list[Tensor]) -> Tensor:
    return left(s * 2, [f * 2 for f in b]) / 2


_ALL: tuple[Spelling, ...] = (
    left, branches_first, right, between, function, alpha, minus, reversed_minus, negated, in_place, method,
    in_a_slice, set_slice, in_a_view, turned, widened, builtin, stacked, averaged, concatenated, addcmul, addcdiv,
    lerp, addmm, index_add, scaled,
)  # fmt: skip
BY_NAME: dict[str, Spelling] = {f.__name__: f for f in _ALL}
SPELLINGS = tuple(BY_NAME)

"""Which example each element of a stream belongs to: the one whose target alone depends on it.

Products and norms are taken example by example, but a stream need not begin with the batch: it may be [positions,
batch, width] inside a model that is batch first outside, hold several streams of an example one after the other,
[batch · n, ...], or have nodes for rows. So nothing is assumed of sizes. The targets' gradient is pulled back a second
time with each example's target times another power of two, 2^w: then it is 2^w times what it was wherever one example's
target alone depends on an element, bit for bit, for scaling by powers of two commutes with rounding; and w tells which.
Of more examples than there are powers the number is told digit by digit.

    example       0      1      2
    times         ½      1      2
    [batch, 4]    ½½½½   1111   2222        rows are examples
    [3, batch]    ½12    ½12    ½12         columns are
    [nodes, 4]    ½      ½½½½   1½          any other number: examples influence one another, and are summed
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_POWERS = 16  # ½^8 to 2^7: half precision bears them
_ROUNDING = 64  # units of rounding by which two gradients may differ that are the same up to a power of two


@dataclass(frozen=True, eq=False)
class Owners:
    """Whose the elements of one stream are.

    Attributes:
        numbers: the example of each element, [*stream]; or of each row, [rows], where a dimension tells.
        dimension: along which the rows lie; None where it takes every element to tell.
    """

    numbers: Tensor
    dimension: int | None

    def spread(self, weights: Tensor, like: Tensor) -> Tensor:
        """One number for each example, as a tensor that multiplies the stream."""
        chosen = weights.to(like)[self.numbers]
        if self.dimension is None:
            return chosen
        return chosen.reshape([-1 if d == self.dimension else 1 for d in range(like.ndim)])

    def sums(self, values: Tensor, count: int) -> Tensor:
        """The sum over each example's elements, [stack, *stream] -> [stack, count]."""
        if self.dimension is None:
            rows = values.flatten(1)
        else:
            rows = values.movedim(self.dimension + 1, 1).flatten(2).sum(2) if values.ndim > 2 else values
        if self.dimension is not None and rows.shape[1] == count and bool((self.numbers.diff() == 1).all()):
            return rows
        return rows.new_zeros((len(rows), count)).index_add_(1, self.numbers.flatten(), rows)


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of a run, apart where they are separate, and otherwise as one.

    Attributes:
        count: how many there are; 1 where they are summed.
        summed: whether some influence others, so that only the sum over all of them can be split.
        owners: whose each stream's elements are; empty where there is but one example, or all are one.
    """

    count: int
    summed: bool
    owners: Mapping[str, Owners]

    def dot(self, stream: str, gradients: Tensor, value: Tensor) -> Tensor:
        """⟨gradient, value⟩ per example, [*stream] -> [count] or [stack, *stream] -> [stack, count]."""
        product = gradients * value
        if product.is_complex():  # dL = Re(conj(g)·dz)
            product = (gradients.conj() * value).real
        return self.sums(stream, product, stacked=gradients.ndim > value.ndim)

    def sums(self, stream: str, values: Tensor, *, stacked: bool = True) -> Tensor:
        """The sum over each example's elements of a stream."""
        rows = values if stacked else values[None]
        owners = self.owners.get(stream)
        totals = rows.reshape(len(rows), -1).sum(1, keepdim=True) if owners is None else owners.sums(rows, self.count)
        return totals if stacked else totals[0]

    def weighted(self, stream: str, gradient: Tensor, weights: Tensor) -> Tensor:
        """A gradient of the sum as one of a weighted sum, [count] weights."""
        owners = self.owners.get(stream)
        return gradient if owners is None else gradient * owners.spread(weights, gradient)

    def places(self, stream: str, like: Tensor) -> Tensor | None:
        """The places of each example's elements in the flat stream, [count, elements]; None where some have more."""
        flat = torch.arange(like.numel(), device=like.device)
        owners = self.owners.get(stream)
        if owners is None:
            return flat[None] if self.count == 1 else None
        numbers = owners.numbers.flatten()
        if bool((numbers.bincount(minlength=self.count) * self.count != len(numbers)).any()):
            return None
        order = numbers.argsort(stable=True)
        if owners.dimension is None:
            return order.reshape(self.count, -1)
        rows = flat.reshape(like.shape).movedim(owners.dimension, 0).reshape(len(numbers), -1)
        return rows[order].reshape(self.count, -1)

    def of(self, values: Tensor) -> Tensor:
        """Targets, one for each example: as they are, or their sum."""
        return values.sum(0, keepdim=True) if self.summed else values


def said_of(summed: bool) -> str:
    """What a caption adds where examples are not separate."""
    return "; examples influence one another: the sum over the batch" if summed else ""


def examples(
    pull: Callable[[Tensor], Mapping[str, Tensor]],
    count: int,
    gradients: Mapping[str, Tensor],
    precision: torch.dtype,
) -> Examples:
    """Tell examples apart at some streams, for one backward pass or, beyond 16 examples, two, three, ...

    Args:
        pull: from a weight for each example's target, [batch], to the gradients of the weighted sum by stream.
        count: how many examples there are.
        gradients: of the plain sum, at the streams where examples are to be told apart.
        precision: the coarsest type in which anything was computed.
    """
    if count == 1:
        return Examples(1, False, {})
    numbers = torch.arange(count, device="cpu")
    digits = [_POWERS**place for place in range(_places(count))]
    pulled = [pull(torch.exp2(((numbers // digit) % _POWERS - _POWERS // 2).double())) for digit in digits]
    owners = {}
    # Stream by stream: whose each element is takes twice the memory of the element.
    for stream, plain in gradients.items():
        owner = torch.zeros(plain.shape, dtype=torch.int64, device=plain.device)
        for digit, weighted in zip(digits, pulled, strict=True):
            which = _digits(weighted.get(stream, plain), plain, precision)
            if which is None:
                return Examples(1, True, {})
            owner += digit * which
        owners[stream] = _owners(owner.clamp_max(count - 1), plain)
    return Examples(count, False, owners)


def _places(count: int) -> int:
    """How many digits tell so many examples apart."""
    places = 1
    while _POWERS**places < count:
        places += 1
    return places


def _digits(weighted: Tensor, plain: Tensor, precision: torch.dtype) -> Tensor | None:
    """The power of two by which each element grew; None where some grew by none. Zeros, which are nobody's, tell 0."""
    a, b = _parts(weighted), _parts(plain)
    ratio = a / b
    known = torch.isfinite(ratio) & (ratio > 0)
    least, most = -(_POWERS // 2), _POWERS // 2 - 1
    power = torch.where(known, ratio, torch.ones_like(ratio)).log2().round().clamp(least, most)
    # What is not finite says nothing of whose it is.
    finite = torch.isfinite(a) & torch.isfinite(b)
    size = torch.where(finite, b, torch.zeros_like(b)).abs().max() if b.numel() else b.new_zeros(())
    departs = torch.where(finite, a * torch.exp2(-power) - b, torch.zeros_like(b)).abs()
    if bool((departs > _ROUNDING * torch.finfo(precision).eps * size).any()):
        return None
    return torch.where(known, power - least, torch.zeros_like(power)).long().amax(-1)


def _parts(gradient: Tensor) -> Tensor:
    """In float64, with a last dimension for real and imaginary part."""
    return (
        torch.view_as_real(gradient.detach()).double()
        if gradient.is_complex()
        else gradient.detach().double()[..., None]
    )


def _owners(numbers: Tensor, gradient: Tensor) -> Owners:
    """By rows along one dimension, where all elements of each row that have a gradient are one example's."""
    some = gradient != 0
    for dimension in sorted(range(numbers.ndim), key=lambda d: numbers.shape[d] == 1):
        rows, live = (part.movedim(dimension, 0)[..., None].flatten(1) for part in (numbers, some))
        highest = torch.where(live, rows, torch.full_like(rows, -1)).amax(1)
        if bool(((rows == highest[:, None]) | ~live).all()):
            return Owners(highest.clamp_min(0), dimension)
    return Owners(numbers, None)

"""What "exact" means: errors relative in the largest norm, never a cosine, against one table of tolerances."""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Shaped
from torch import Tensor

from unbraid.discover import by_chance
from unbraid.errors import InexactError
from unbraid.graph import Graph

_TOLERANCES = {
    "forward": {torch.float64: 1e-12, torch.float32: 1e-5},
    "sum": {torch.float64: 1e-10, torch.float32: 1e-4},
}
_COARSE = {"forward": 2e-2, "sum": 5e-2}
_PIECE = 2**16  # numbers that are compared at a time: they stay in a processor's cache


def tolerance(quantity: str, dtype: torch.dtype) -> float:
    """The largest relative error that is rounding alone.

    Args:
        quantity: "forward" for form(x) against model(x); "sum" for terms, spectra and paths against the whole.
        dtype: the element type of the model's trunk.
    """
    return _TOLERANCES[quantity].get(dtype.to_real() if dtype.is_complex else dtype, _COARSE[quantity])


def relative_error(a: Shaped[Tensor, "*shape"], b: Shaped[Tensor, "*shape"]) -> float:
    """‖a − b‖∞ / ‖b‖∞, computed in float64; where b is zero, ‖a‖∞ itself.

    Values that are not finite must be the same in both, and some must be finite, or nothing was compared: otherwise the
    error is infinite. (Were it none, a network of nan would follow its model to 0.)
    """
    if not a.numel():
        return 0.0
    measured = [_compare(x, y) for x, y in zip(pieces(a), pieces(b), strict=True)]
    if all(size is None for _, size in measured):  # nothing is finite
        return math.inf
    distance = max(distance for distance, _ in measured)
    size = max(size for _, size in measured if size is not None)
    return distance / size if size else distance


def pieces(tensor: Tensor) -> Iterator[Tensor]:
    """The numbers of a tensor in pieces, to compare them without others of its size.

    A language model's scores are its largest tensors, and each step would make one more in float64.
    """
    flat = tensor.detach().reshape(-1)
    for first in range(0, len(flat), _PIECE):
        yield flat[first : first + _PIECE]


def _compare(a: Tensor, b: Tensor) -> tuple[float, float | None]:
    """‖a − b‖∞ and ‖b‖∞ over the numbers that are finite in both; none of the latter where no number is."""
    x, y = a.to(_widest(a)), b.to(_widest(b))
    distance, size = (x - y).abs().max().item(), y.abs().max().item()
    if math.isfinite(distance) and math.isfinite(size):  # then so are all of the numbers
        return distance, size
    finite = torch.isfinite(x) & torch.isfinite(y)
    if not bool(((x == y) | (torch.isnan(x) & torch.isnan(y)) | finite).all()):
        return math.inf, None
    if not bool(finite.any()):
        return 0.0, None
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    return torch.where(finite, x - y, zero).abs().max().item(), torch.where(finite, y, zero).abs().max().item()


def sum_error(parts: Shaped[Tensor, "parts *shape"], whole: Shaped[Tensor, "*shape"]) -> float:
    """‖Σ parts − whole‖∞ relative to the largest number among the parts and the whole.

    A whole that is a small difference of large parts is as exact as these: its own size says nothing of rounding.

    Args:
        parts: what must sum to the whole, one after the other.
        whole: the sum as it is known otherwise.
    """
    error = relative_error(parts.sum(0), whole)
    own, largest = _largest(whole), max(_largest(parts), _largest(whole))
    # relative_error is relative to the whole, and absolute where that is zero.
    return error * (own or 1.0) / largest if largest and math.isfinite(error) else error


def check_error(error: float, bound: float, message: str, *, where: str) -> None:
    """Refuse an error that is more than rounding; nan is.

    Args:
        error: the relative error.
        bound: the largest that is accepted.
        message: what must hold, and how far it does not.
        where: the block, stream or operator at which it does not hold.

    Raises:
        InexactError: with the message.
    """
    if not error <= bound:
        raise InexactError(message, where=where, error=error)


def check_sum(
    error: float,
    rule: str,
    *,
    precision: torch.dtype,
    graph: Graph,
    where: str,
    departs: str = "they depart",
    first: Callable[[], str] | None = None,
) -> None:
    """Refuse parts that do not sum to the whole; where the graph draws random numbers, the message says so.

        check_sum(sum_error(terms, stream), "unravel: the terms must sum to the stream", precision=..., ...)

    Args:
        error: `sum_error` of the parts and the whole, or how far the whole departs otherwise.
        rule: what must hold: of which analysis what must sum to what.
        precision: of the form, `ResidualForm.precision`.
        graph: what was run.
        where: the stream at which the sum is taken.
        departs: the subject of the departure, and its verb.
        first: finds the place at which the sum departs first; called where it does.

    Raises:
        InexactError: "<rule> to <bound>; <departs> by <error>", and where first.
    """
    bound = tolerance("sum", precision)
    if not error <= bound:
        where = first() if first is not None else where
        place = f", first at {where}" if first is not None else ""
        said = f"{rule} to {bound:g}; {departs} by {error:.2e}{place}.{by_chance(graph)}"
        raise InexactError(said, where=where, error=error)


def _largest(tensor: Tensor) -> float:
    if not tensor.numel():
        return 0.0
    size = tensor.detach().abs()
    largest = size.max().item()
    return largest if math.isfinite(largest) else size.nan_to_num(0.0, 0.0, 0.0).max().item()


def _widest(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64

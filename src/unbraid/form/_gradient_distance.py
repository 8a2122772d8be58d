"""How far apart two gradients lie, and why they may."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unbraid.capture.trees import tensors_in
from unbraid.discover import drawn
from unbraid.errors import InexactError
from unbraid.form._core import Form
from unbraid.form._gradient_sources import Leaves
from unbraid.graph.edits import coarsest, under_autocast
from unbraid.graph.state import device_of, meta_tensor
from unbraid.results import pieces, tolerance

# A gradient that is zero by symmetry (of the bias of keys, of a bias before a norm) is rounding alone: an error is
# relative to this part of the largest gradient, at least.
_FLOOR = 1e-3


# Weights that are taken into float64 where the verdict hangs on it, a gigabyte.
_ROOM = 2**27

# Two roundings of one gradient lie this many times as far apart as one lies from the truth, at most.
_LIKE = 4.0


@dataclass(frozen=True)
class GradientCheck:
    """How closely a form's gradient follows the model's.

    Attributes:
        error: ‖form − model‖∞ / ‖model‖∞, the largest over inputs and parameters; nan where nothing was compared.
        where: the input or parameter with that error.
        unchecked: why nothing was compared; None where it was.
    """

    error: float
    where: str = ""
    unchecked: str | None = None


@dataclass(frozen=True)
class Departure:
    """How far apart two gradients lie, ‖ours − theirs‖∞, and the largest finite number of each."""

    distance: float
    ours: float
    theirs: float

    @staticmethod
    def of(ours: Tensor | None, theirs: Tensor | None) -> "Departure":
        """Measure two gradients, where nothing stands for zero."""
        ours, theirs = _dense(ours), _dense(theirs)
        return Departure(_distance(ours, theirs), _size(ours), _size(theirs))


class AsTheyCome:
    """Compares a form's gradients with the model's as soon as there are any, and lets go of both.

    Those of a small model are as large as its weights: held for either side until the end they would be most of what a
    check needs.

    Args:
        theirs: the model's gradients, by leaf; they are let go of.
    """

    def __init__(self, theirs: list[Tensor | None]) -> None:
        self._theirs = theirs
        self._departures: dict[int, Departure] = {}

    def gradient(self, number: int, ours: Tensor) -> None:
        """Compare the gradient of one leaf."""
        self._departures[number] = Departure.of(ours, self._theirs[number])
        self._theirs[number] = None

    def departures(self) -> list[Departure]:
        """Those of all leaves, also where the form has no gradient."""
        numbered = enumerate(self._theirs)
        return [self._departures[n] if n in self._departures else Departure.of(None, g) for n, g in numbered]


def compared(
    form: Form,
    leaves: Leaves,
    departures: list[Departure],
    again: Callable[[torch.dtype | None], list[Tensor | None]],
) -> GradientCheck:
    """Whether the gradients are the same; `again` takes the form's once more, in some type.

    Raises:
        InexactError: they depart by more than rounding; it names where.
    """
    worst, number = _worst(departures)
    where = leaves.names[number] if worst else ""
    precision = under_autocast(coarsest(form.graph, form.dtype), device_of(form.state))
    bound = tolerance("sum", precision)
    if not worst <= bound and _small(form) and torch.finfo(precision).eps > torch.finfo(torch.float64).eps:
        # Where large terms cancel, gradients of few digits depart by more; then how far rounding alone takes the form's
        # own from its gradient in float64 is what counts.
        rounded = map(Departure.of, again(None), again(torch.float64))
        bound = max(bound, _LIKE * _worst(list(rounded))[0])
    if not worst <= bound:
        at = departures[number]
        raise InexactError(
            f"The form's gradient must be the model's own to {bound:g}; at {where!r} it departs by {worst:.2e}: its "
            f"largest number is {at.ours:.3g} in the form, and {at.theirs:.3g} in the model.\n" + _likely(form),
            where=where,
            error=worst,
        )
    return GradientCheck(worst, where)


def _likely(form: Form) -> str:
    """Why a gradient may be another one though all values are right, and what to do."""
    model = form.origin.model if form.origin is not None else None
    kept = _kept(model) if model is not None else None
    if kept is not None:
        return (
            f"  The model keeps {kept!r} from an earlier call with the history of how it was made: autograd goes on "
            "into that call, whose graph the form does not have.\n"
            "  Let it be made without one: clear it, and call the model under torch.no_grad before it is traced."
        )
    return (
        "  What the model's values do not show was lost when it was captured: a custom autograd.Function (its "
        "backward is not seen; torch.utils.checkpoint with use_reentrant=True is one), a hook on a gradient, or a "
        "region without gradients.\n"
        "  Write it with torch.no_grad and detach, or with use_reentrant=False."
    )


def _kept(model: nn.Module) -> str | None:
    """The name of an attribute whose tensor, or one inside it, has a history."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            own = name in {"_parameters", "_modules"}
            if not own and any(tensor.grad_fn is not None for tensor in tensors_in(value)):
                return f"{path}.{name}" if path else name
    return None


def _worst(departures: list[Departure]) -> tuple[float, int]:
    """The largest error of a gradient, and its place."""
    largest = max((departure.theirs for departure in departures), default=0.0)
    errors = [0.0]
    for departure in departures:
        scale = max(departure.ours, departure.theirs, _FLOOR * largest)
        errors.append(departure.distance / scale if scale else departure.distance)
    worst = max(range(len(errors)), key=errors.__getitem__)
    return errors[worst], max(worst - 1, 0)


def _dense(gradient: Tensor | None) -> Tensor | None:
    """An embedding may give the gradient of the rows alone that were asked for."""
    return gradient if gradient is None or gradient.layout is torch.strided else gradient.to_dense()


def _small(form: Form) -> bool:
    """Whether there is room for the weights in float64, and nothing that would be drawn anew in another type."""
    learned = sum(meta_tensor(form.state, name).numel() for name in form.state)
    return learned <= _ROOM and not drawn(form.graph)


def _distance(a: Tensor | None, b: Tensor | None) -> float:
    """‖a − b‖∞, where nothing stands for zero; numbers that are not finite must be the same."""
    if a is None or b is None:
        return _size(b if a is None else a, finite=False)
    return max((_apart(x, y) for x, y in zip(pieces(a), pieces(b), strict=True)), default=0.0)


def _apart(a: Tensor, b: Tensor) -> float:
    x, y = a.to(_widest(a)), b.to(_widest(b))
    distance = (x - y).abs().max().item()
    if math.isfinite(distance):  # then so are all of the numbers
        return distance
    same = (x == y) | (torch.isnan(x) & torch.isnan(y))
    away = torch.where(same, torch.zeros_like(x), x - y).abs()
    return float(away.max()) if bool(torch.isfinite(away).all()) else math.inf


def _widest(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def _size(tensor: Tensor | None, *, finite: bool = True) -> float:
    """The largest number, of those that are finite or, where any is not, infinity."""
    return 0.0 if tensor is None else max((_largest(piece, finite) for piece in pieces(tensor)), default=0.0)


def _largest(tensor: Tensor, finite: bool) -> float:
    size = tensor.abs()
    largest = size.max().item()
    if math.isfinite(largest):
        return largest
    return size.nan_to_num(0.0, 0.0, 0.0).max().item() if finite else math.inf

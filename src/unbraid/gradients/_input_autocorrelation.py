"""How alike gradients at neighbouring inputs are (figure 11.3 of Prince 2023).

A *line* is a row of inputs at equal distances. Along it dy/dx is a signal, and its autocorrelation at lag l says how
much of the gradient at one input is left l points further on. Gradients that shatter are white noise: 1 at lag 0, and
about 0 from there on.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid._progress import how_many, progress
from unbraid.results import Result
from unbraid.results.rows import Row, as_rows

_ROUNDING = 1000.0  # how many units of rounding a derivative through a deep network may carry, relative

_SHOWN = 11  # lags in the table


@dataclass(frozen=True, eq=False, repr=False)
class Autocorrelation(Result):
    """How alike the gradients at neighbouring inputs are: the autocorrelation of dy/dx along a line (figure 11.3).

    Attributes:
        values: the mean over networks of the autocorrelation at each lag, 1 at lag 0, [lags].
        band: the 95 % confidence interval of that mean, [lags, 2]; nan where there was one network.
        each: the autocorrelation of each network along each line, [networks, lags].
        norms: the root mean square of dy/dx along the line, for each of these: it may vanish or explode.
        spacing: the distance between neighbouring points, the mean over lines.
    """

    values: Float[Tensor, " lags"]
    band: Float[Tensor, "lags two"]
    each: Float[Tensor, "networks lags"]
    norms: Float[Tensor, " networks"]
    spacing: float

    columns = (
        ("lag", "{lag:d}"),
        ("autocorrelation", "{autocorrelation:+.3f}"),
        ("95 % of the mean", "{low:+.3f} to {high:+.3f}"),
    )
    entries = ("values", "band", "norms", "spacing")

    @property
    def caption(self) -> str:
        """How many networks or lines there were, and how far apart the points."""
        return f"{len(self.each)} networks or lines, points {self.spacing:.3g} apart"

    def rows(self) -> list[Row]:
        """One row per lag."""
        lags = range(len(self.values))
        distances = [lag * self.spacing for lag in lags]
        low, high = self.band.unbind(1)
        return as_rows({"lag": lags, "distance": distances, "autocorrelation": self.values, "low": low, "high": high})

    def _table_rows(self) -> list[Row]:
        return self.rows()[:_SHOWN]

    def scalars(self) -> dict[str, float]:
        """The autocorrelation at lag 1, and the root mean square of dy/dx, a mean over networks."""
        return {"autocorrelation at lag 1": float(self.values[1]), "gradient rms": float(self.norms.mean())}

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The autocorrelation by lag, with its band."""
        from unbraid.draw.gradients import autocorrelation

        return autocorrelation(self.values.tolist(), self.band.tolist(), self.spacing, ax=ax)


@outside_modes
def input_autocorrelation(
    networks: Iterable[Callable[[Tensor], Tensor]],
    grid: Float[Tensor, "points *features"] | Sequence[Float[Tensor, "points *features"]],
    *,
    lags: int | None = None,
) -> Autocorrelation:
    """The autocorrelation of dy/dx at equally spaced points on a line in input space, averaged over networks.

    d = dy/dx is the derivative of the sum of a network's outputs along the line; its mean over the line is removed, and
    R(l) = Σ_i d_i d_{i+l} / Σ_i d_i², which is 1 at lag 0 (Balduzzi et al. 2017; figure 11.3 of Prince 2023). Gradients
    that shatter look like white noise: R is about 0 from lag 1 on.

    Args:
        networks: functions of a batch of points; batch norm in train mode takes the line's statistics.
        grid: the points, the same distance apart, at least three. `line` makes them for any data set. Where several
            lines are given, of as many points, every network is followed along each.
        lags: how many lags beside 0; by default a quarter of the points.

    Raises:
        ValueError: the points do not lie on a line at equal distances, or there is no network.
    """
    grids = [grid] if isinstance(grid, Tensor) else list(grid)
    if len({len(points) for points in grids}) != 1:
        raise ValueError(
            "input_autocorrelation: needs one line or several of as many points; there are "
            f"{sorted({len(points) for points in grids}) or 'none'}."
        )
    directions = [_direction(points) for points in grids]
    spacing = sum(distance for _, distance in directions) / len(directions)
    points = len(grids[0])
    count = min(lags if lags is not None else points // 4, points - 2)
    each, norms = [], []
    with progress("networks", how_many(networks)) as step:
        for network in networks:
            for along, (direction, _) in zip(grids, directions, strict=True):
                slopes = _slopes(network, along, direction).double().cpu()
                norms.append(slopes.square().mean().sqrt())
                each.append(_autocorrelation(slopes, count, torch.finfo(along.dtype).eps))
            step()
    if not each:
        raise ValueError("input_autocorrelation: needs at least one network.")
    stack = torch.stack(each)
    mean = stack.mean(0)
    half = 1.96 * stack.std(0) / math.sqrt(len(stack)) if len(stack) > 1 else torch.full_like(mean, torch.nan)
    return Autocorrelation(mean, torch.stack([mean - half, mean + half], 1), stack, torch.stack(norms), spacing)


def line(
    inputs: Float[Tensor, "examples *features"], points: int, *, length: float = 1.0, generator: torch.Generator
) -> Float[Tensor, "points *features"]:
    """Equally spaced points on a random line through a data set: from one random example towards another.

    Args:
        inputs: the examples.
        points: how many.
        length: of the line, in distances between the two examples; it is centred halfway between them.
        generator: which draws the two.
    """
    first, second = torch.randperm(len(inputs), generator=generator, device="cpu")[:2].tolist()
    start, end = inputs[first], inputs[second]
    along = torch.linspace(0.5 - length / 2, 0.5 + length / 2, points, dtype=inputs.dtype, device=inputs.device)
    return start + along.reshape(-1, *[1] * start.ndim) * (end - start)


def _direction(grid: Tensor) -> tuple[Tensor, float]:
    if len(grid) < 3:
        raise ValueError(f"input_autocorrelation: needs at least 3 points on a line, and {len(grid)} came.")
    steps = (grid[1:] - grid[:-1]).double()
    mean = steps.mean(0)
    spacing = float(mean.norm())
    if not spacing or float((steps - mean).abs().max()) > 1e-3 * spacing:
        raise ValueError("input_autocorrelation: the points must lie on a line, the same distance apart.")
    return (mean / spacing).to(grid), spacing


def _slopes(network: Callable[[Tensor], Tensor], grid: Tensor, direction: Tensor) -> Tensor:
    """The derivative of the output's sum along the line, at every point."""
    leaf = grid.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(network(leaf).sum(), leaf)
    return (gradient * direction).reshape(len(grid), -1).sum(1)


def _autocorrelation(slopes: Float[Tensor, " points"], lags: int, eps: float) -> Float[Tensor, " lags"]:
    centred = slopes - slopes.mean()
    whole = centred.square().sum()
    if whole <= (_ROUNDING * eps) ** 2 * slopes.square().sum():
        # A derivative that is the same everywhere, to rounding: neighbours are as alike as can be.
        return torch.ones(lags + 1, dtype=slopes.dtype, device="cpu")
    products = [(centred[: len(centred) - lag] * centred[lag:]).sum() for lag in range(lags + 1)]
    return torch.stack(products) / whole

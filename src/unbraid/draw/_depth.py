"""Test error against depth, plain against residual."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unbraid.draw._sheet import sheet
from unbraid.draw._style import PALETTE, plain_text, shorten

__all__ = ["DepthCurve", "depth"]

_MOST_SAID = 3  # outcomes that fit into a title
# The two that differ most come first: most figures have two curves.
_COLOURS = tuple(PALETTE[place] for place in (0, 3, 2, 5, 1, 4))
_MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True)
class DepthCurve:
    """The test errors of one kind of network at several depths.

    Attributes:
        name: what it is called in the figure, such as "plain".
        depths: the number of layers or blocks, in rising order.
        errors: for each depth the test errors in percent, one per seed; nan for a run that diverged.
    """

    name: str
    depths: tuple[int, ...]
    errors: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not self.depths or len(self.depths) != len(self.errors) or any(not runs for runs in self.errors):
            raise ValueError(
                f"DepthCurve {self.name!r}: needs at least one error for every depth; "
                f"got {len(self.depths)} depths and errors for {len(self.errors)}."
            )
        if any(low >= high for low, high in zip(self.depths, self.depths[1:], strict=False)):
            raise ValueError(f"DepthCurve {self.name!r}: depths must rise; got {self.depths}.")

    def mean(self, at: int) -> float:
        """The mean error in percent at the depth in place `at`, over the runs that did not diverge; nan if all did."""
        finite = self._finite(at)
        return math.fsum(finite) / len(finite) if finite else math.nan

    def spread(self, at: int) -> tuple[float, float]:
        """The least and the greatest error at that depth, diverged runs left out."""
        finite = self._finite(at)
        return (min(finite), max(finite)) if finite else (math.nan, math.nan)

    def _finite(self, at: int) -> list[float]:
        return [error for error in self.errors[at] if math.isfinite(error)]


def depth(curves: Sequence[DepthCurve], *, ax: Axes | None = None) -> Figure:
    """Test error against depth, a line for each kind of network, with the spread over seeds as bars.

    A depth at which every run of a kind diverged has no point; the lines are named at their ends.

    Args:
        curves: plain and residual, or any others; at most six.
        ax: where to draw; by default a figure of its own.

    Returns:
        A matplotlib figure whose title states the errors at the greatest depth.

    Raises:
        ValueError: no curve, or more than six.
    """
    if not 1 <= len(curves) <= len(PALETTE):
        raise ValueError(f"depth: draws 1 to {len(PALETTE)} curves; got {len(curves)}.")
    with sheet(7.2, 4.2, ax) as page:
        axes = page.axes
        page.title(shorten(_finding(curves), 84))
        for number, curve in enumerate(curves):
            _draw_curve(axes, curve, _COLOURS[number], _MARKERS[number])
        _frame(axes, curves)
        _name_lines(axes, curves)
    return page.figure


def _finding(curves: Sequence[DepthCurve]) -> str:
    deepest = max(curve.depths[-1] for curve in curves)
    said = [f"{shorten(curve.name, 24)} {_outcome(curve)}" for curve in curves if curve.depths[-1] == deepest]
    if len(said) > _MOST_SAID:
        finite = [curve for curve in curves if curve.depths[-1] == deepest and math.isfinite(curve.mean(-1))]
        best = min(finite, key=lambda curve: curve.mean(-1), default=None)
        said = [f"best {shorten(best.name, 24)} {_outcome(best)}" if best else "all diverge"]
    return f"Test error at depth {deepest}: {', '.join(said)}"


def _outcome(curve: DepthCurve) -> str:
    mean = curve.mean(-1)
    return f"{mean:.0f} %" if math.isfinite(mean) else "diverges"


def _draw_curve(axes: Axes, curve: DepthCurve, color: str, marker: str) -> None:
    means = [curve.mean(at) for at in range(len(curve.depths))]
    spreads = [curve.spread(at) for at in range(len(curve.depths))]
    below = [mean - low for mean, (low, _) in zip(means, spreads, strict=True)]
    above = [high - mean for mean, (_, high) in zip(means, spreads, strict=True)]
    axes.errorbar(
        curve.depths,
        means,
        yerr=[below, above],
        color=color,
        marker=marker,
        markersize=6.0,
        capsize=3.5,
        elinewidth=1.2,
    )


def _frame(axes: Axes, curves: Sequence[DepthCurve]) -> None:
    depths = sorted(set[int]().union(*(curve.depths for curve in curves)))
    axes.set_xticks(depths)
    room = (depths[-1] - depths[0]) or 1
    axes.set_xlim(depths[0] - 0.06 * room, depths[-1] + 0.06 * room)
    axes.set_ylim(0, 100)
    axes.set_xlabel("depth (layers)")
    axes.set_ylabel("test error (%)")
    axes.grid(axis="y", alpha=0.25, linewidth=0.6)


def _name_lines(axes: Axes, curves: Sequence[DepthCurve]) -> None:
    """Each name beside the end of its line; names that would meet move apart, by 5 % of the height at least."""
    ends = []
    for number, curve in enumerate(curves):
        finite = [
            (curve.depths[at], curve.mean(at)) for at in range(len(curve.depths)) if math.isfinite(curve.mean(at))
        ]
        if finite:
            ends.append((finite[-1][1], number, curve.name))
    height = -math.inf
    for mean, number, name in sorted(ends):
        height = max(mean, height + 5.5)
        text = axes.annotate(name, (1.01, height), xycoords=("axes fraction", "data"), va="center", size=10.0)
        text.set(color=_COLOURS[number], weight="bold", annotation_clip=False)
        plain_text(text, limit=24)

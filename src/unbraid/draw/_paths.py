"""The values of all paths, by length."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unbraid.draw._sheet import sheet
from unbraid.draw._style import INK, PALETTE

__all__ = ["paths"]

_MOST = 64


def paths(lengths: Sequence[int], values: Sequence[float], *, ax: Axes | None = None) -> Figure:
    """One bar per path, grouped by the number of branches it goes through, with each group's sum.

    Args:
        lengths: the number of branches of each path.
        values: what each path adds to the output, in the output's units.
        ax: where to draw; by default a figure of its own.

    Returns:
        A matplotlib figure whose title states the sum over all paths.

    Raises:
        ValueError: no path, more than 64, lengths that differ in number from the values, or a value not finite.
    """
    if not 1 <= len(values) <= _MOST or len(lengths) != len(values):
        raise ValueError(f"paths: draws 1 to {_MOST} paths with a length each; got {len(values)} and {len(lengths)}.")
    if not all(math.isfinite(value) for value in values):
        raise ValueError("paths: a value is not finite.")
    ordered = sorted(zip(lengths, values, strict=True), key=lambda path: path[0])
    with sheet(max(5.6, 1.6 + 0.36 * len(values)), 4.2, ax) as page:
        page.title(f"{len(values)} paths add up to {math.fsum(values):.6g}")
        _bars(page.axes, ordered)
    return page.figure


def _bars(axes: Axes, ordered: Sequence[tuple[int, float]]) -> None:
    gap, place = 0.9, 0.0
    ticks, names = [], []
    low = min(0.0, *(value for _, value in ordered))
    high = max(0.0, *(value for _, value in ordered))
    for length in sorted({length for length, _ in ordered}):
        values = [value for of, value in ordered if of == length]
        places = [place + number for number in range(len(values))]
        axes.bar(places, values, width=0.7, color=PALETTE[length % len(PALETTE)])
        ticks.append((places[0] + places[-1]) / 2)
        names.append(f"{length}\nsum\n{math.fsum(values):.4g}")
        place = places[-1] + 1 + gap
    axes.set_xticks(ticks, names)
    axes.tick_params(axis="x", length=0)
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low) or 1.0)
    axes.set_xlabel("length of the path (branches)")
    axes.set_ylabel("value of the path (units of the output)")

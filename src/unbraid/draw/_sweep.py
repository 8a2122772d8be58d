"""Test errors of many settings, one row each."""

import math
import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unbraid.draw._sheet import sheet
from unbraid.draw._style import MUTED, PALETTE, shorten

__all__ = ["sweep"]


def sweep(names: Sequence[str], errors: Sequence[Sequence[float]], *, ax: Axes | None = None) -> Figure:
    """A row for each setting: a dot for each seed, a bar from the least to the greatest, a tick at the median.

    Args:
        names: what each setting is called; shown as they stand.
        errors: for each setting the test errors in percent, one per seed; nan for a run that diverged, which has no dot
            and is counted beside the row.
        ax: where to draw; by default a figure of its own.

    Returns:
        A matplotlib figure whose title names the setting of the least median.

    Raises:
        ValueError: nothing is given, or the lengths differ.
    """
    if not names or len(names) != len(errors):
        raise ValueError(
            f"sweep: needs errors for every name; got {len(names)} names and {len(errors)} rows of errors."
        )
    finite = [list(filter(math.isfinite, row)) for row in errors]
    with sheet(7.2, 1.35 + 0.3 * len(names), ax) as page:
        axes = page.axes
        page.title(shorten(_finding(names, finite), 84))
        for place, row in enumerate(finite):
            _draw_row(axes, place, row, len(errors[place]) - len(row))
        axes.set_yticks(range(len(names)), [shorten(name, 44) for name in names])
        for label in axes.get_yticklabels():
            label.set_parse_math(False)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 100)
        axes.set_xlabel("test error (%)")
        axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    return page.figure


def _finding(names: Sequence[str], finite: Sequence[Sequence[float]]) -> str:
    medians = {place: statistics.median(row) for place, row in enumerate(finite) if row}
    if not medians:
        return "Every run diverges"
    best = min(medians, key=lambda place: medians[place])
    return f"Least median test error: {medians[best]:.1f} % with {shorten(names[best], 40)}"


def _draw_row(axes: Axes, place: int, row: Sequence[float], diverged: int) -> None:
    if row:
        axes.plot([min(row), max(row)], [place, place], color=PALETTE[0], linewidth=1.2)
        axes.plot(row, [place] * len(row), "o", color=PALETTE[0], markersize=4.5, linestyle="none")
        axes.plot([statistics.median(row)], [place], "|", color=PALETTE[3], markersize=15, markeredgewidth=2.2)
    if diverged:
        said = f"{diverged} diverged" if row else "all diverged"
        axes.annotate(said, (99.0, place), ha="right", va="center", color=MUTED, size=9.0)

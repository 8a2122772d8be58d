"""What each block is worth."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unbraid.draw._sheet import sheet
from unbraid.draw._style import MUTED, PALETTE, shorten

__all__ = ["ranking"]

_MOST_NAMED = 24  # bars that still carry their names on half a page


def ranking(
    names: Sequence[str],
    scores: Sequence[float],
    label: str,
    *,
    least: str = "counts least",
    ax: Axes | None = None,
) -> Figure:
    """One bar per block in order of execution, the least in another colour; names are left out beyond 24.

    Args:
        names: what each score belongs to; shown as they stand.
        scores: the scores; not finite where there is none.
        label: what the scores are, for the axis.
        least: what the title says of the least score, after its name.
        ax: where to draw; by default a figure of its own.

    Returns:
        A matplotlib figure whose title names the least.

    Raises:
        ValueError: nothing is given, or the lengths differ.
    """
    if not names or len(names) != len(scores):
        raise ValueError(f"ranking: needs one score for every name; got {len(names)} names and {len(scores)} scores.")
    known = [place for place, score in enumerate(scores) if math.isfinite(score)]
    lowest = min(known, key=lambda place: scores[place], default=None)
    heights = [score if math.isfinite(score) else 0.0 for score in scores]
    colors = [PALETTE[3] if place == lowest else PALETTE[0] for place in range(len(names))]
    named = len(names) <= _MOST_NAMED
    with sheet(7.2, 1.35 + 0.3 * len(names) if named else 4.2, ax) as page:
        axes = page.axes
        title = "no score" if lowest is None else f"{shorten(names[lowest], 24)} {least}: {scores[lowest]:.3g}"
        page.title(title)
        if named:
            _bars(axes, names, heights, colors, label)
        else:
            axes.bar(range(len(names)), heights, color=colors, width=0.8)
            axes.set_xlabel("in order of execution")
            axes.set_ylabel(label)
        axes.margins(x=0.02)
    return page.figure


def _bars(axes: Axes, names: Sequence[str], heights: Sequence[float], colors: Sequence[str], label: str) -> None:
    places = range(len(names))
    axes.barh(places, heights, height=0.62, color=colors)
    axes.set_yticks(places, [shorten(name, 28) for name in names])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.axvline(0.0, color=MUTED, linewidth=0.8)
    axes.set_xlabel(label)

"""What each term adds to a scalar of the output, and what the model would say after each term."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unbraid.draw._sheet import sheet
from unbraid.draw._style import MUTED, PALETTE, shorten

__all__ = ["agreement", "contributions"]

_MOST_NAMED = 24


def contributions(names: Sequence[str], values: Sequence[float], *, ax: Axes | None = None) -> Figure:
    """One bar per term, to the right where it adds and to the left where it takes away, in order of execution.

    Args:
        names: of the terms; shown as they stand, and left out beyond 24.
        values: what each adds, in the units of the scalar.
        ax: where to draw; by default a figure of its own.

    Raises:
        ValueError: nothing is given, the lengths differ, or a value is not finite.
    """
    if not names or len(names) != len(values) or not all(map(math.isfinite, values)):
        raise ValueError(f"contributions: needs a finite value for each of {len(names)} names; got {len(values)}.")
    named = len(names) <= _MOST_NAMED
    with sheet(7.2, 1.35 + 0.3 * len(names) if named else 4.2, ax) as page:
        axes = page.axes
        places = range(len(names))
        colors = [PALETTE[0] if value >= 0 else PALETTE[3] for value in values]
        if named:
            axes.barh(places, values, height=0.62, color=colors)
            axes.set_yticks(places, [shorten(name, 28) for name in names])
            for text in axes.get_yticklabels():
                text.set_parse_math(False)
            axes.invert_yaxis()
            axes.axvline(0, color=MUTED, linewidth=0.8)
            axes.set_xlabel("what the term adds (units of the target)")
        else:
            axes.vlines(places, 0, values, color=colors, linewidth=max(0.6, 156 / len(names)))
            axes.axhline(0, color=MUTED, linewidth=0.8)
            axes.set_xlabel("term, in order of execution")
            axes.set_ylabel("what the term adds (units of the target)")
        largest = max(places, key=lambda k: abs(values[k]))
        page.title(f"The largest is {shorten(names[largest], 24)}: {values[largest]:+.3g} of {math.fsum(values):.3g}")
    return page.figure


def agreement(shares: Sequence[float], divergence: Sequence[float], *, ax: Axes | None = None) -> Figure:
    """How soon the partial sums of the terms say what the model says.

    Args:
        shares: for each partial sum the share of predictions that are the model's.
        divergence: the Kullback-Leibler divergence from the model's distribution, in nats.
        ax: where to draw; by default a figure of its own.

    Raises:
        ValueError: nothing is given, or the lengths differ.
    """
    if not shares or len(shares) != len(divergence):
        raise ValueError(f"agreement: needs a divergence for each of {len(shares)} shares; got {len(divergence)}.")
    with sheet(7.2, 4.6, ax, panels=2) as page:
        above, below = page.panels
        places = range(len(shares))
        above.plot(places, [100 * share for share in shares], color=PALETTE[0], marker="o", markersize=4)
        above.set_ylim(-3, 103)
        above.set_ylabel("same prediction (%)")
        below.plot(places, divergence, color=PALETTE[3], marker="s", markersize=4)
        below.set_ylim(bottom=0)
        below.set_ylabel("divergence (nats)")
        below.set_xlabel("terms summed, after the first")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        half = next(k for k, share in enumerate(shares) if share >= 0.5)
        page.title(f"Half of the predictions are the model's after {half} of {len(shares) - 1} terms")
    return page.figure

"""The terms of Equation 11.5 by size."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unbraid.draw._sheet import Sheet, sheet
from unbraid.draw._style import MUTED, PALETTE, shorten

__all__ = ["terms"]

_MOST_NAMED = 24  # bars that still carry their names on half a page


def terms(names: Sequence[str], norms: Sequence[float], *, ax: Axes | None = None) -> Figure:
    """The norm of every term of a stream: one bar per term, in order of execution; thin ones without names beyond 24.

    Args:
        names: the terms' names, the input's first; shown as they stand.
        norms: their norms, in the units of the stream, none negative.
        ax: where to draw; by default a figure of its own.

    Returns:
        A matplotlib figure whose title names the largest term and its share of the sum of all norms.

    Raises:
        ValueError: nothing is given, the lengths differ, or a norm is negative or not finite.
    """
    _check(names, norms)
    with sheet(7.2, 1.35 + 0.3 * len(names) if len(names) <= _MOST_NAMED else 4.2, ax) as page:
        _heading(page, names, norms)
        if len(names) <= _MOST_NAMED:
            _bars(page.axes, names, norms)
        else:
            _line(page.axes, norms)
    return page.figure


def _check(names: Sequence[str], norms: Sequence[float]) -> None:
    if not names or len(names) != len(norms):
        raise ValueError(f"terms: needs one norm for every name; got {len(names)} names and {len(norms)} norms.")
    for name, norm in zip(names, norms, strict=True):
        if not (math.isfinite(norm) and norm >= 0):
            raise ValueError(f"terms: a norm is finite and not negative; that of {name!r} is {norm}.")


def _heading(page: Sheet, names: Sequence[str], norms: Sequence[float]) -> None:
    largest = max(range(len(norms)), key=lambda term: norms[term])
    total = sum(norms)
    share = f"{100 * norms[largest] / total:.0f} % of all norms together" if total else "all terms are zero"
    page.title(f"The largest term is {shorten(names[largest], 24)}: {share}")


def _bars(axes: Axes, names: Sequence[str], norms: Sequence[float]) -> None:
    colors = [MUTED, *[PALETTE[0]] * (len(names) - 1)]  # the input is what the blocks add to
    places = range(len(names))
    axes.barh(places, norms, height=0.62, color=colors)
    axes.set_yticks(places, [shorten(name, 28) for name in names])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, max(norms) * 1.14 or 1.0)
    for place, norm in zip(places, norms, strict=True):
        axes.annotate(f"{norm:.3g}", (norm, place), (4, 0), textcoords="offset points", va="center", size=9.0)
    axes.set_xlabel("norm of the term (units of the stream)")


def _line(axes: Axes, norms: Sequence[float]) -> None:
    places = range(len(norms))
    axes.vlines(places, 0, norms, color=PALETTE[0], linewidth=max(0.6, 260 / len(norms) * 0.6), capstyle="butt")
    axes.set_xlim(-1, len(norms))
    axes.set_ylim(0, max(norms) * 1.06 or 1.0)
    axes.set_xlabel("term, in order of execution (0 is the input)")
    axes.set_ylabel("norm of the term (units of the stream)")

"""Gradients and signals through depth."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unbraid.draw._sheet import sheet
from unbraid.draw._style import INK, MUTED, PALETTE

__all__ = ["autocorrelation", "chain", "coherence", "predictiveness", "signal", "skip_gain"]

_WIDE = 30.0  # the ratio beyond which an axis is logarithmic


def signal(
    total: Sequence[float],
    branch: Sequence[float],
    gradient: Sequence[float],
    expected: Sequence[float] | None = None,
    *,
    ax: Axes | None = None,
) -> Figure:
    """Variance of the stream and of the branches by block, and below the gradient's norm.

    Args:
        total: the variance of each block's sum.
        branch: the variance of its branch.
        gradient: the norm of the gradient at the sum; not finite where it was not taken.
        expected: a closed form of `unbraid.gradients.theory` for the variance after each block.
        ax: where to draw; by default a figure of its own.

    Raises:
        ValueError: nothing is given, or the lengths differ.
    """
    if not total or len(total) != len(branch) or len(total) != len(gradient):
        raise ValueError(f"signal: needs as many variances as gradients; got {[*map(len, (total, branch, gradient))]}.")
    known = any(map(math.isfinite, gradient))
    with sheet(7.2, 5.4 if known else 3.6, ax, panels=2 if known else 1) as page:
        rows = page.panels
        blocks = range(len(total))
        if expected is not None:
            rows[0].plot(range(len(expected)), expected, color=MUTED, linewidth=4, alpha=0.5, label="closed form")
        _curve(rows[0], blocks, total, "sum", PALETTE[0], "o")
        _curve(rows[0], blocks, branch, "branch", PALETTE[3], "s")
        _scale(rows[0], [*total, *branch])
        rows[0].set_ylabel("variance")
        page.title(_growth(total))
        rows[0].legend(frameon=False, labelcolor=INK)
        if known:
            _curve(rows[1], blocks, gradient, "gradient", PALETTE[2], "^")
            _scale(rows[1], gradient)
            rows[1].set_ylabel("‖∂loss/∂sum‖")
        _by_block(rows[-1])
    return page.figure


def _growth(total: Sequence[float]) -> str:
    finite = [value for value in total if math.isfinite(value) and value > 0]
    if len(finite) < 2:
        return "The variance by depth"
    return f"The variance changes {finite[-1] / finite[0]:.3g}-fold from the first block to the last"


def _curve(axes: Axes, places: Sequence[int], values: Sequence[float], label: str, color: str, marker: str) -> None:
    axes.plot(places, values, color=color, marker=marker, markersize=4, label=label)


def _by_block(axes: Axes) -> None:
    """What the horizontal axis counts."""
    axes.set_xlabel("block, in order of execution")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Logarithmic where the values span more than an order of magnitude; otherwise from zero."""
    known = [value for value in values if math.isfinite(value)]
    if known and min(known) > 0 and max(known) > _WIDE * min(known):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def coherence(cosine: Sequence[float], ratio: Sequence[float], *, ax: Axes | None = None) -> Figure:
    """How alike the gradients of different examples are, by block.

    Args:
        cosine: the mean cosine of two examples' gradients.
        ratio: ‖mean gradient‖ / mean ‖gradient‖.
        ax: where to draw; by default a figure of its own.

    Raises:
        ValueError: nothing is given, or the lengths differ.
    """
    if not cosine or len(cosine) != len(ratio):
        raise ValueError(f"coherence: needs a ratio for every cosine; got {len(ratio)} for {len(cosine)}.")
    with sheet(7.2, 3.6, ax) as page:
        axes = page.axes
        axes.plot(range(len(cosine)), cosine, color=PALETTE[0], marker="o", markersize=4, label="mean cosine")
        axes.plot(range(len(ratio)), ratio, color=PALETTE[3], marker="s", markersize=4, label="‖mean‖ / mean norm")
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_ylim(min(-0.05, *cosine), 1.05)  # a cosine of 0, chance, is seen above the axis
        axes.set_ylabel("agreement of examples (1: alike)")
        _by_block(axes)
        page.title(f"Mean cosine {cosine[0]:.2f} in the first block, {cosine[-1]:.2f} in the last")
        page.legend()
    return page.figure


def skip_gain(rows: Sequence[float], columns: Sequence[float], *, ax: Axes | None = None) -> Figure:
    """How much the skips up to each block amplify together.

    Args:
        rows: the largest absolute row sum of their product, for values.
        columns: the largest absolute column sum, for gradients.
        ax: where to draw; by default a figure of its own.

    Raises:
        ValueError: nothing is given, or the lengths differ.
    """
    if not rows or len(rows) != len(columns):
        raise ValueError(f"skip_gain: needs as many row sums as column sums; got {len(rows)} and {len(columns)}.")
    with sheet(7.2, 3.6, ax) as page:
        axes = page.axes
        _curve(axes, range(len(rows)), rows, "values: largest row sum", PALETTE[0], "o")
        _curve(axes, range(len(columns)), columns, "gradients: largest column sum", PALETTE[3], "s")
        axes.axhline(1, color=MUTED, linewidth=0.8)
        _scale(axes, [*rows, *columns])
        axes.set_ylabel("gain of all skips so far")
        _by_block(axes)
        page.title(f"The skips together amplify up to {max(*rows, *columns):.3g}-fold")
        page.legend()
    return page.figure


def predictiveness(
    steps: Sequence[float], change: Sequence[float], cosine: Sequence[float], *, ax: Axes | None = None
) -> Figure:
    """How far a step for one example changes another's gradient, against the step's size.

    Args:
        steps: the step sizes, positive.
        change: the relative change of the gradient.
        cosine: the cosine between the gradients after and before.
        ax: where to draw; by default a figure of its own.

    Raises:
        ValueError: nothing is given, or the lengths differ.
    """
    if not steps or len(steps) != len(change) or len(steps) != len(cosine):
        raise ValueError(
            f"predictiveness: needs two numbers a step; got {len(change)}, {len(cosine)} for {len(steps)}."
        )
    with sheet(7.2, 3.6, ax) as page:
        axes = page.axes
        axes.plot(steps, change, color=PALETTE[3], marker="s", markersize=4, label="relative change")
        axes.plot(steps, cosine, color=PALETTE[0], marker="o", markersize=4, label="cosine with the gradient before")
        axes.set_xscale("log")
        axes.set_ylim(bottom=min(0.0, *cosine))
        axes.set_xlabel("step size η")
        axes.set_ylabel("another example's gradient")
        page.title(f"A step of {steps[-1]:g} changes other gradients by {100 * change[-1]:.0f} %")
        page.legend()
    return page.figure


def autocorrelation(
    values: Sequence[float], band: Sequence[Sequence[float]], spacing: float, *, ax: Axes | None = None
) -> Figure:
    """The autocorrelation of dy/dx by lag, with the band of its mean (figure 11.3 of Prince 2023).

    Args:
        values: at each lag, 1 at lag 0.
        band: low and high at each lag; not finite where there is none.
        spacing: the distance of one lag.
        ax: where to draw; by default a figure of its own.

    Raises:
        ValueError: nothing is given, or the lengths differ.
    """
    if len(values) < 2 or len(values) != len(band):
        raise ValueError(f"autocorrelation: needs a band for each of two lags or more; got {len(band)}, {len(values)}.")
    with sheet(7.2, 3.6, ax) as page:
        axes = page.axes
        places = [lag * spacing for lag in range(len(values))]
        low, high = zip(*band, strict=True)
        if all(map(math.isfinite, low)):
            axes.fill_between(places, low, high, color=PALETTE[0], alpha=0.2, linewidth=0)
        axes.plot(places, values, color=PALETTE[0])
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_ylim(min(-0.3, *values), 1.05)
        axes.set_xlabel("distance along the line (units of the input)")
        axes.set_ylabel("autocorrelation of dy/dx")
        page.title(f"Neighbouring gradients correlate {values[1]:.2f}")
    return page.figure


def chain(
    names: Sequence[str], largest: Sequence[float], smallest: Sequence[float], *, ax: Axes | None = None
) -> Figure:
    """The extreme singular values of every factor of the chain rule.

    Args:
        names: of the factors, in order.
        largest: the largest singular value of each.
        smallest: the smallest of each.
        ax: where to draw; by default a figure of its own.

    Raises:
        ValueError: nothing is given, or the lengths differ.
    """
    if not names or len(names) != len(largest) or len(names) != len(smallest):
        raise ValueError(f"chain: needs two values for each of {len(names)} factors.")
    with sheet(7.2, 3.6, ax) as page:
        axes = page.axes
        places = range(len(names))
        axes.vlines(places, smallest, largest, color=MUTED, linewidth=2)
        axes.plot(places, largest, color=PALETTE[3], marker="^", linestyle="", label="largest singular value")
        axes.plot(places, smallest, color=PALETTE[0], marker="v", linestyle="", label="smallest")
        axes.axhline(1, color=MUTED, linewidth=0.8)
        _scale(axes, [*largest, *smallest])
        axes.set_xlabel("factor, from the input on")
        axes.set_ylabel("singular value")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        top = max(places, key=lambda k: largest[k])
        page.title(f"The largest stretch is {largest[top]:.3g}-fold, in factor {top}")
        page.legend()
    return page.figure

"""What a model loses with its blocks: one by one, in pairs, by their number, and by their order."""

import math
from collections.abc import Sequence
from operator import itemgetter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unbraid.draw._sheet import sheet
from unbraid.draw._style import INK, MUTED, PALETTE, shorten

__all__ = ["lesion_pairs", "lesions", "reorderings", "subsets"]

_LABELS = 40  # more than these under one axis cannot be read


def lesions(
    whole: float,
    labels: Sequence[str],
    names: Sequence[str],
    metrics: Sequence[float],
    quantity: str = "metric",
    *,
    ax: Axes | None = None,
) -> Figure:
    """The metric without each set of blocks, beside that of the whole model.

    Args:
        whole: the metric of the whole model.
        labels: the number of each block, or whatever is short.
        names: the name of what was deleted.
        metrics: the metric without it.
        quantity: what the metric is, with its unit.
        ax: where to draw; by default a figure of its own.
    """
    with sheet(7.2, 3.9, ax) as page:
        axes = page.axes
        places = range(len(metrics))
        _whole(axes, whole)
        axes.vlines(places, whole, metrics, color=PALETTE[0], linewidth=1.2)
        axes.plot(places, metrics, "o", color=PALETTE[0], markersize=4)
        every = max(1, math.ceil(len(labels) / _LABELS))
        crowded = max(map(len, labels), default=0) > 3 or len(labels) > 24
        axes.set_xticks(
            list(places)[::every], [shorten(label, 14) for label in labels][::every], rotation=90 if crowded else 0
        )
        axes.set_xlim(-0.7, len(metrics) - 0.3)
        axes.margins(y=0.12)
        axes.set_xlabel("deleted block")
        axes.set_ylabel(quantity)
        page.title(_most(whole, names, metrics))
    return page.figure


def lesion_pairs(
    whole: float,
    pairs: Sequence[tuple[int, ...]],
    metrics: Sequence[float],
    quantity: str = "metric",
    *,
    ax: Axes | None = None,
) -> Figure:
    """The metric without each pair of blocks, as a map.

    Args:
        whole: the metric of the whole model.
        pairs: the two blocks of each pair, as numbers.
        metrics: the metric without them.
        quantity: what the metric is, with its unit.
        ax: where to draw; by default a figure of its own.
    """
    blocks = sorted(set[int]().union(*pairs))
    place = {block: number for number, block in enumerate(blocks)}
    grid = np.full((len(blocks), len(blocks)), np.nan)
    for (a, b), metric in zip(pairs, metrics, strict=True):
        grid[place[a], place[b]] = grid[place[b], place[a]] = metric
    with sheet(7.2, 5.8, ax) as page:
        axes = page.axes
        image = axes.imshow(np.ma.masked_invalid(grid), cmap="cividis", origin="lower")
        axes.spines[["top", "right"]].set_visible(True)
        every = max(1, math.ceil(len(blocks) / 20))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(list(range(len(blocks)))[::every], [str(block) for block in blocks][::every])
        axes.set_xlabel("deleted block")
        axes.set_ylabel("deleted block")
        page.figure.colorbar(image, ax=axes, label=f"{quantity} without both (whole model: {whole:.4g})", shrink=0.85)
        names = [f"blocks {a} and {b}" for a, b in pairs]
        page.title(_most(whole, names, metrics))
    return page.figure


def subsets(
    kept: Sequence[int],
    metrics: Sequence[float],
    whole: float,
    quantity: str = "metric",
    *,
    ax: Axes | None = None,
) -> Figure:
    """The metric of subnetworks by the number of blocks they keep: mean, median and the range of all.

    Args:
        kept: how many blocks each subnetwork keeps.
        metrics: its metric.
        whole: the metric of the whole model.
        quantity: what the metric is, with its unit.
        ax: where to draw; by default a figure of its own.
    """
    by_number: dict[int, list[float]] = {}
    for count, metric in sorted(zip(kept, metrics, strict=True), key=itemgetter(0)):
        by_number.setdefault(count, []).append(metric)
    numbers, groups = list(by_number), list(by_number.values())
    with sheet(7.2, 3.9, ax) as page:
        axes = page.axes
        low, high = [min(group) for group in groups], [max(group) for group in groups]
        axes.fill_between(numbers, low, high, color=PALETTE[4], alpha=0.25, lw=0, label="range")
        axes.plot(numbers, [float(np.median(group)) for group in groups], "--", color=PALETTE[3], label="median")
        axes.plot(
            numbers, [float(np.mean(group)) for group in groups], "-o", color=PALETTE[0], markersize=4, label="mean"
        )
        _whole(axes, whole)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("blocks kept")
        axes.set_ylabel(quantity)
        axes.margins(y=0.12)
        axes.legend(frameon=False, labelcolor=INK, loc="best")
        shown = [numbers[place] for place in dict.fromkeys((-1, len(numbers) // 2, 0))]
        means = {number: float(np.mean(group)) for number, group in zip(numbers, groups, strict=True)}
        page.title("Mean by blocks kept: " + ", ".join(f"{means[number]:.3g} of {number}" for number in shown))
    return page.figure


def reorderings(
    tau: Sequence[float],
    metrics: Sequence[float],
    whole: float,
    quantity: str = "metric",
    *,
    ax: Axes | None = None,
) -> Figure:
    """The metric of reordered models against Kendall's τ of their order.

    Args:
        tau: the rank correlation of each order with the original one, 1 where nothing moved.
        metrics: the metric of the reordered model.
        whole: the metric of the model as it is.
        quantity: what the metric is, with its unit.
        ax: where to draw; by default a figure of its own.
    """
    with sheet(7.2, 3.9, ax) as page:
        axes = page.axes
        axes.plot(tau, metrics, "o", color=PALETTE[0], markersize=4, alpha=0.6)
        low = min(tau, default=0.0)
        axes.set_xlim(1.0 + 0.03 * (1.0 - low) + 0.005, low - 0.03 * (1.0 - low) - 0.005)  # from order to disorder
        _whole(axes, whole)
        axes.set_xlabel("Kendall's τ with the original order (1: unchanged)")
        axes.set_ylabel(quantity)
        axes.margins(y=0.12)
        worst = max(range(len(metrics)), key=lambda number: abs(metrics[number] - whole))
        page.title(f"At τ = {tau[worst]:.2f} the order alone moves the metric from {whole:.3g} to {metrics[worst]:.3g}")
    return page.figure


def _whole(axes: Axes, whole: float) -> None:
    """The metric of the whole model as a line, named outside of the axes, where no point lies."""
    axes.axhline(whole, color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)))
    place = axes.get_yaxis_transform()
    axes.annotate(f"whole\nmodel\n{whole:.3g}", (1.015, whole), xycoords=place, va="center", color=MUTED, size=9)


def _most(whole: float, names: Sequence[str], metrics: Sequence[float]) -> str:
    if not metrics:
        return "Nothing was deleted"
    number = max(range(len(metrics)), key=lambda n: abs(metrics[n] - whole))
    return f"Without {shorten(names[number], 30)} the metric goes from {whole:.3g} to {metrics[number]:.3g}"

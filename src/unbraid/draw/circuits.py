"""Edges and circuits: what each block tells each later block."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unbraid.draw._sheet import sheet
from unbraid.draw._style import INK, MUTED, PALETTE, shorten

__all__ = ["edges", "faithfulness"]

_WORDS = 22  # characters of a name beside the map
_NAMED = 40  # writers or readers that are named; of more, every so many


def edges(
    writers: Sequence[str],
    readers: Sequence[str],
    effects: Sequence[Sequence[float]],
    *,
    label: str = "change of the target",
    ax: Axes | None = None,
) -> Figure:
    """The effect of each edge as a map: readers below one another, writers side by side.

    Args:
        writers: their names, in order of execution.
        readers: their names.
        effects: of the edge from each writer to each reader, [writers, readers]; nan where there is none.
        label: what the colours stand for.
        ax: where to draw; by default a figure of its own.

    Raises:
        ValueError: the effects are no table of these sizes, or all are nan.
    """
    table = np.asarray(effects, dtype=float)
    if table.shape != (len(writers), len(readers)) or not np.isfinite(table).any():
        raise ValueError(
            f"edges: needs an effect for each of {len(writers)} writers and {len(readers)} readers; got "
            f"{list(table.shape)}, {int(np.isfinite(table).sum())} of them numbers."
        )
    side = min(2.2 + 0.24 * max(table.shape), 11.0)
    with sheet(side + 2.2, side, ax) as page:
        axes, most = page.axes, float(np.nanmax(abs(table))) or 1.0
        axes.set_facecolor("none")
        image = axes.imshow(table.T, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest", aspect="auto")
        page.figure.colorbar(image, ax=axes, label=label)
        _named(axes, writers, readers)
        axes.set_xlabel("writer")
        axes.set_ylabel("reader")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=7, labelcolor=MUTED)
        i, j = divmod(int(np.nanargmax(abs(table))), len(readers))
        page.title(f"Most: {shorten(writers[i], 20)} → {shorten(readers[j], 20)}, {table[i, j]:+.3g}")
    return page.figure


def faithfulness(
    shares: Sequence[float],
    kept: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    complement: Sequence[float],
    *,
    ax: Axes | None = None,
) -> Figure:
    """The share of a model's metric that circuits keep, by their share of its edges.

    Args:
        shares: of the model's edges in each circuit.
        kept: what each keeps, 1 for the whole model.
        low: the lower ends of its intervals.
        high: the upper ends.
        complement: what the edges outside of each keep.
        ax: where to draw; by default a figure of its own.

    Raises:
        ValueError: there is no circuit, or the curves differ in length.
    """
    curves = (shares, kept, low, high, complement)
    if not len(shares) or {len(curve) for curve in curves} != {len(shares)}:
        raise ValueError(f"faithfulness: needs as many numbers in each curve; got {[len(curve) for curve in curves]}.")
    with sheet(7.2, 3.9, ax) as page:
        axes, percent = page.axes, [100 * share for share in shares]
        axes.fill_between(percent, low, high, color=PALETTE[0], alpha=0.2, linewidth=0)
        axes.plot(percent, kept, "o-", color=PALETTE[0], label="the circuit")
        axes.plot(percent, complement, "s--", color=PALETTE[3], label="all other edges")
        axes.axhline(1, color=INK, linewidth=0.6)
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.set_xlabel("edges of the model in the circuit (%)")
        axes.set_ylabel("share of the metric kept")
        axes.legend(frameon=False)
        page.title(f"{percent[-1]:.0f} % of the edges keep {100 * kept[-1]:.0f} % of the metric")
    return page.figure


def _named(axes: Axes, writers: Sequence[str], readers: Sequence[str]) -> None:
    for names, axis in ((writers, axes.xaxis), (readers, axes.yaxis)):
        every = -(-len(names) // _NAMED)
        places = list(range(0, len(names), every))
        axis.set_ticks(places, [shorten(names[place], _WORDS) for place in places])
    axes.xaxis.set_tick_params(rotation=90)

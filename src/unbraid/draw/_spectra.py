"""How the gradient's path lengths move while a network learns."""

from collections.abc import Sequence
from itertools import pairwise
from operator import mul

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unbraid.draw._sheet import sheet
from unbraid.draw._style import INK, PAPER

__all__ = ["spectra"]

_SEEN = 0.1  # %: lengths beyond the last one with such a share are left out


def spectra(steps: Sequence[int], shares: Sequence[Sequence[float]], *, ax: Axes | None = None) -> Figure:
    """Share of the gradient's norm by path length (up) against training (right), with the mean length as a line.

    Args:
        steps: when each spectrum was taken, ascending.
        shares: for each the share of every length.
        ax: where to draw; by default a figure of its own.

    Raises:
        ValueError: there is no spectrum, or they differ in length.
    """
    if not steps or len(steps) != len(shares) or len({len(share) for share in shares}) != 1:
        raise ValueError(f"spectra: needs one spectrum of equal length a step; got {len(steps)} steps, {len(shares)}.")
    lengths = range(len(shares[0]))
    means = [sum(map(mul, lengths, share)) for share in shares]
    with sheet(7.2, 3.9, ax) as page:
        axes = page.axes
        columns = 100 * np.asarray(shares).T
        # Records may be apart by different numbers of steps: each cell is centred on its own step.
        mesh = axes.pcolormesh(_edges(steps), _edges(list(lengths)), columns, cmap="cividis_r", vmin=0)
        mesh.set(edgecolor="face", linewidth=0.3)  # without, viewers of SVG show seams between cells
        page.figure.colorbar(mesh, ax=axes, label="share of the gradient's norm (%)")
        axes.plot(steps, means, color=PAPER, linewidth=3.6)
        axes.plot(steps, means, color=INK, linewidth=1.4, marker="o", markersize=3.5)
        axes.set_xlabel("step")
        axes.set_ylabel(f"branches on the path (at most {lengths[-1]})")
        axes.set_ylim(-0.5, max(length for length in lengths if max(columns[length]) >= _SEEN) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        page.title(f"Mean path length: {means[0]:.1f} at first, {means[-1]:.1f} at last (black line)")
    return page.figure


def _edges(centres: Sequence[int]) -> list[float]:
    """The borders of cells around ascending centres."""
    if len(centres) == 1:
        return [centres[0] - 0.5, centres[0] + 0.5]
    inner = [(a + b) / 2 for a, b in pairwise(centres)]
    return [2 * centres[0] - inner[0], *inner, 2 * centres[-1] - inner[-1]]

"""The gradient through each block and through pairs of blocks."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unbraid.draw._sheet import sheet
from unbraid.draw._style import INK, PALETTE, shorten

__all__ = ["parts"]


def parts(names: Sequence[str], shares: Sequence[Sequence[float]], *, ax: Axes | None = None) -> Figure:
    """The share of the gradient that passes each block; a matrix where pairs are known, single blocks on its diagonal.

    Args:
        names: of the blocks, in order of execution.
        shares: signed shares ⟨g_S, g⟩/‖g‖², [blocks, blocks]; nan off the diagonal where pairs are not known.
        ax: where to draw; by default a figure of its own.

    Raises:
        ValueError: nothing is given, or the shares are no square of the names' size.
    """
    size = len(names)
    if not size or len(shares) != size or any(len(row) != size for row in shares):
        raise ValueError(f"parts: needs a share for every pair of {size} blocks; got {len(shares)} rows.")
    single = [100 * shares[k][k] for k in range(size)]
    largest = max(range(size), key=lambda k: abs(single[k]))
    with sheet(7.2, 5.4 if _known(shares) else 3.9, ax) as page:
        axes = page.axes
        if _known(shares):
            _matrix(page.figure, axes, shares)
        else:
            axes.bar(range(size), single, color=PALETTE[0], width=0.7)
            axes.axhline(0, color=INK, linewidth=0.6)
            axes.set_ylabel("share of the gradient (%)")
        axes.set_xlabel("block")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        page.title(f"Most passes {shorten(names[largest], 28)}: {single[largest]:.0f} % of the gradient")
    return page.figure


def _known(shares: Sequence[Sequence[float]]) -> bool:
    return len(shares) > 1 and math.isfinite(shares[0][1])


def _matrix(figure: Figure, axes: Axes, shares: Sequence[Sequence[float]]) -> None:
    percent = 100 * np.asarray(shares, dtype=float)
    most = float(np.nanmax(abs(percent))) or 1.0
    # Lightness alone grows with the size on both sides of zero, so grey print keeps it.
    image = axes.imshow(percent, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the gradient through both (%)")
    axes.set_ylabel("block")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[:].set_visible(False)

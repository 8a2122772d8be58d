"""Figure 11.1: a plain network, one layer after the other."""

from matplotlib.figure import Figure

from unbraid.draw._kinds import check_blocks
from unbraid.draw._network import hidden
from unbraid.draw._shapes import arrow, box, label
from unbraid.draw._style import blank, colour, style

__all__ = ["plain"]

_STEP, _LEFT, _WIDTH, _HEIGHT = 1.75, 0.75, 0.72, 0.46
_LINE = 1.15  # height above the lower edge


def plain(k: int = 4) -> Figure:
    """The plain network of Equation 11.1, h_k = f_k[h_{k-1}] with h_0 = x and h_K = y.

    After figure 11.1 of Prince (2023), and drawn as `network` draws the residual one.

    Args:
        k: the number of layers K, 1 to 6.

    Returns:
        A matplotlib figure; save it with `unbraid.draw.save`.

    Raises:
        ValueError: k is not in 1..6.
    """
    check_blocks(k)
    with style():
        end = _LEFT + k * _STEP
        figure = blank(max(end + 0.6, 4.6), 2.0)
        axes = figure.axes[0]
        heading = f"{k} layer{'s' if k > 1 else ''} without skips: 1 path from x to y"
        label(axes, (0.25, 1.72), heading, size=11.5, ha="left").set_fontweight("bold")
        label(axes, (_LEFT - 0.42, _LINE), "$x$", size=15.0)
        start = _LEFT - 0.24
        for layer in range(1, k + 1):
            middle, output = _LEFT + (layer - 0.5) * _STEP, "y" if layer == k else f"h_{layer}"
            arrow(axes, (start, _LINE), (middle - _WIDTH / 2, _LINE))
            box(
                axes, (middle, _LINE), rf"$f_{layer}$", color=colour(layer - 1), width=_WIDTH, height=_HEIGHT, size=14.0
            )
            label(axes, (middle, 0.42), f"${output} = f_{layer}[{hidden(layer)}]$", size=11.0)
            start = middle + _WIDTH / 2
        arrow(axes, (start, _LINE), (end - 0.1, _LINE))
        label(axes, (end + 0.1, _LINE), "$y$", size=15.0)
    return figure

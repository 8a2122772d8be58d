"""Figure 11.4a: a residual network, drawn with its trunk as one straight line."""

from matplotlib.figure import Figure

from unbraid.draw._shapes import arrow, box, fork, label, plus, wire
from unbraid.draw._style import blank, colour, style

__all__ = ["check_blocks", "hidden", "network"]

_STEP = 2.15  # inches from one addition to the next
_LEFT, _RIGHT = 0.75, 0.85
_TRUNK, _BRANCH = 1.62, 0.92  # heights above the lower edge


def check_blocks(k: int) -> None:
    """Raises ValueError unless 1 ≤ k ≤ 6: with more, the 2^k paths of the companion figure fit no page."""
    if not 1 <= k <= 6:
        raise ValueError(f"the figure shows 1 to 6 blocks; got {k}. More blocks have too many paths to draw: 2^K.")


def hidden(block: int) -> str:
    """The stream that block `block` (from 1) reads, in mathtext: x, h_1, h_2, ..."""
    return "x" if block == 1 else f"h_{block - 1}"


def network(k: int = 4) -> Figure:
    """The residual network of Equation 11.4, h_k = h_{k-1} + f_k[h_{k-1}] with h_0 = x and h_K = y.

    After figure 11.4a of Prince (2023): the trunk is the straight line, each branch leaves and rejoins it.

    Args:
        k: the number of blocks K, 1 to 6.

    Returns:
        A matplotlib figure; save it with `unbraid.draw.save`.

    Raises:
        ValueError: k is not in 1..6.
    """
    check_blocks(k)
    with style():
        figure = blank(max(_LEFT + k * _STEP + _RIGHT, 4.6), 2.6)
        axes = figure.axes[0]
        heading = (
            "1 block: 2 paths from x to y" if k == 1 else f"{k} blocks, each with its skip: {2**k} paths from x to y"
        )
        label(axes, (0.25, 2.32), heading, size=11.5, ha="left").set_fontweight("bold")
        end = _LEFT + k * _STEP
        label(axes, (_LEFT - 0.42, _TRUNK), "$x$", size=15.0)
        wire(axes, [(_LEFT - 0.24, _TRUNK), (end, _TRUNK)])
        for block in range(1, k + 1):
            _draw_block(figure, block, last=block == k)
        arrow(axes, (end, _TRUNK), (end + 0.45, _TRUNK))
        label(axes, (end + 0.6, _TRUNK), "$y$", size=15.0)
    return figure


def _draw_block(figure: Figure, block: int, *, last: bool) -> None:
    """One block: the branch below the trunk, the name of the sum above it, the equation beneath."""
    axes = figure.axes[0]
    color = colour(block - 1)
    start = _LEFT + (block - 1) * _STEP + 0.36
    end = _LEFT + block * _STEP
    middle = (start + end) / 2
    output = "y" if last else f"h_{block}"
    wire(axes, [(start, _TRUNK), (start, _BRANCH), (end, _BRANCH), (end, _TRUNK)], color=color)
    fork(axes, (start, _TRUNK))
    plus(axes, (end, _TRUNK))
    box(axes, (middle, _BRANCH), rf"$f_{block}$", color=color, width=0.72, height=0.46, size=14.0)
    if not last:
        label(axes, (end + 0.1, _TRUNK + 0.28), f"${output}$", size=12.0)
    equation = rf"${output} = {hidden(block)} + f_{block}[{hidden(block)}]$"
    label(axes, (middle, 0.36), equation, size=11.0)

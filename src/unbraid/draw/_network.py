"""Figure 11.4a: a residual network, drawn with its trunk as one straight line."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from unbraid.draw._kinds import Kinds, Shown, draw_join, draw_skip, kinds_of
from unbraid.draw._shapes import arrow, box, fork, label, wire
from unbraid.draw._style import blank, colour, style

__all__ = ["hidden", "network"]

_STEP = 2.15  # inches from one addition to the next
_LEFT, _RIGHT = 0.75, 0.85
_TRUNK, _BRANCH = 1.62, 0.92  # heights above the lower edge


def hidden(block: int) -> str:
    """The stream that block `block` (from 1) reads, in mathtext: x, h_1, h_2, ..."""
    return "x" if block == 1 else f"h_{block - 1}"


def network(blocks: int | Sequence[Shown] = 4) -> Figure:
    """The residual network of Equation 11.4, h_k = h_{k-1} + f_k[h_{k-1}] with h_0 = x and h_K = y.

    After figure 11.4a of Prince (2023): the trunk is the straight line, each branch leaves and rejoins it. A gate is a
    circle with a dot, a projection S or a mix R a box on the trunk; where skip and branch lie side by side, a square
    with two bars stands for the plus.

    Args:
        blocks: the number of blocks K, 1 to 6; or those of a form, `form.blocks`, of which skips and joins are shown.

    Returns:
        A matplotlib figure; save it with `unbraid.draw.save`.

    Raises:
        ValueError: there are not 1 to 6 blocks, or they lie on several trunks.
    """
    kinds = kinds_of(blocks)
    k = len(kinds)
    with style():
        figure = blank(max(_LEFT + k * _STEP + _RIGHT, 4.6), 2.6)
        axes = figure.axes[0]
        paths = 2 ** sum(kind.skip != "none" for kind in kinds)
        heading = (
            f"1 block: {paths} paths from x to y"
            if k == 1
            else f"{k} blocks, each with its skip: {paths} paths from x to y"
        )
        label(axes, (0.25, 2.32), heading, size=11.5, ha="left").set_fontweight("bold")
        end = _LEFT + k * _STEP
        label(axes, (_LEFT - 0.42, _TRUNK), "$x$", size=15.0)
        wire(axes, [(_LEFT - 0.24, _TRUNK), (end, _TRUNK)])
        for block in range(1, k + 1):
            _draw_block(figure, block, kinds[block - 1], last=block == k)
        arrow(axes, (end, _TRUNK), (end + 0.45, _TRUNK))
        label(axes, (end + 0.6, _TRUNK), "$y$", size=15.0)
    return figure


def _draw_block(figure: Figure, block: int, kinds: Kinds, *, last: bool) -> None:
    """One block: the branch below the trunk, the name of the sum above it, the equation beneath."""
    axes = figure.axes[0]
    color = colour(block - 1)
    start = _LEFT + (block - 1) * _STEP + 0.36
    end = _LEFT + block * _STEP
    middle = (start + end) / 2
    output = "y" if last else f"h_{block}"
    wire(axes, [(start, _TRUNK), (start, _BRANCH), (end, _BRANCH), (end, _TRUNK)], color=color)
    fork(axes, (start, _TRUNK))
    draw_skip(axes, (middle, _TRUNK), kinds, block)
    draw_join(axes, (end, _TRUNK), kinds)
    box(axes, (middle, _BRANCH), rf"$f_{block}$", color=color, width=0.72, height=0.46, size=14.0)
    if not last:
        label(axes, (end + 0.1, _TRUNK + 0.28), f"${output}$", size=12.0)
    label(axes, (middle, 0.36), rf"${output} = {kinds.equation(hidden(block), block)}$", size=11.0)

"""Figure 11.5: the order of operations in one block."""

from typing import Protocol, runtime_checkable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unbraid.draw._shapes import arrow, box, fork, label, plus, wire
from unbraid.draw._style import MUTED, PALETTE, blank, style

__all__ = ["OrderLike", "order"]

_STEP, _WIDTH, _HEIGHT = 1.2, 0.98, 0.44
_LEFT, _GAP = 0.95, 0.75  # before the fork; on either side of the branch and of the sum
_TRUNK, _BRANCH = 1.55, 0.72
_KINDS = {"act": PALETTE[3], "norm": PALETTE[2], "attention": PALETTE[5], "mlp": PALETTE[1]}


@runtime_checkable
class OrderLike(Protocol):
    """What the figure needs of an order of operations; `unbraid.nn.Order` has it."""

    @property
    def before(self) -> tuple[str, ...]:
        """The tokens of the branch, in order of execution."""

    @property
    def after(self) -> tuple[str, ...]:
        """The tokens applied after the addition."""


def order(order: OrderLike | str) -> Figure:
    """One residual block with its operations in the given order, h ← after(h + before(h)).

    After figure 11.5 of Prince (2023), and figure 4 of He et al. (2016). The title says what the order allows: a
    branch that ends in a ReLU is never negative, so with it the stream can only grow; a branch that ends in a
    linear map can add and subtract.

    Args:
        order: an `unbraid.nn.Order`, or its string such as "act linear act linear +".

    Returns:
        A matplotlib figure, wider with every operation.

    Raises:
        ValueError: the string is no order; the message marks the wrong token.
    """
    parsed = _parse(order) if isinstance(order, str) else order
    before, after = tuple(parsed.before), tuple(parsed.after)
    with style():
        sum_at = _LEFT + 2 * _GAP + max(len(before) - 1, 0) * _STEP + _WIDTH
        end = sum_at + (_GAP * 0.4 + len(after) * _STEP if after else 0.0) + 0.5
        heading, text = _finding(before, after), " ".join((*before, "+", *after))
        figure = blank(max(end + 0.6, 6.6), 2.55)
        axes = figure.axes[0]
        label(axes, (0.25, 2.27), heading, size=11.5, ha="left").set_fontweight("bold")
        label(axes, (0.25, 0.2), text, size=9.0, muted=True, ha="left").set_fontfamily("monospace")
        _draw_trunk(axes, sum_at, end)
        wire(axes, [(_LEFT, _TRUNK), (_LEFT, _BRANCH), (sum_at, _BRANCH), (sum_at, _TRUNK)])
        fork(axes, (_LEFT, _TRUNK))
        plus(axes, (sum_at, _TRUNK))
        _draw_operations(axes, before, _LEFT + _GAP + _WIDTH / 2, _BRANCH)
        _draw_operations(axes, after, sum_at + _GAP * 0.6 + _WIDTH / 2, _TRUNK)
    return figure


def _parse(text: str) -> OrderLike:
    # Imported here because the blocks need torch, which no other figure does.
    from unbraid.nn import Order

    return Order(text)


def _finding(before: tuple[str, ...], after: tuple[str, ...]) -> str:
    """The title: what a block of this order can do."""
    if after:
        return f"The skip is no pure identity: {' and '.join(after)} follows the addition"
    if before and before[-1] == "act":
        return "The branch ends in an activation: with ReLU it can only increase h"
    if before and before[-1] == "norm":
        return "The branch ends in a norm: all blocks add at one scale"
    return "The branch ends in a linear map: it can add and subtract"


def _draw_trunk(axes: Axes, sum_at: float, end: float) -> None:
    label(axes, (_LEFT - 0.6, _TRUNK), "$h_{k-1}$", size=14.0)
    wire(axes, [(_LEFT - 0.3, _TRUNK), (end - 0.4, _TRUNK)])
    arrow(axes, (end - 0.4, _TRUNK), (end, _TRUNK))
    label(axes, (end + 0.24, _TRUNK), "$h_k$", size=14.0)
    label(axes, ((_LEFT + sum_at) / 2, _TRUNK + 0.2), "skip", size=9.0, muted=True)


def _draw_operations(axes: Axes, tokens: tuple[str, ...], start: float, height: float) -> None:
    for position, token in enumerate(tokens):
        center = (start + position * _STEP, height)
        color = _KINDS.get(token, PALETTE[0] if token in ("linear", "conv") else MUTED)
        box(axes, center, token, color=color, width=_WIDTH, height=_HEIGHT, size=10.5)

"""Where a figure of a result is drawn: on a page of its own, or in axes that are given."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unbraid.draw._style import INK, Page, style

__all__ = ["Sheet", "sheet"]

_OWN, _GIVEN = 11.5, 10.0  # points of a title


@dataclass(frozen=True)
class Sheet:
    """A figure and the axes to draw in, one below the other.

    Attributes:
        figure: the whole figure.
        panels: the axes.
        given: whether they are the caller's, in a figure that may hold others.
    """

    figure: Figure
    panels: tuple[Axes, ...]
    given: bool

    @property
    def axes(self) -> Axes:
        """The only axes, or the first."""
        return self.panels[0]

    def title(self, text: str) -> None:
        """The finding, above all, in as many lines as it needs; names in it are shown as they stand."""
        size = _GIVEN if self.given else _OWN
        inches = self.axes.get_window_extent().width / self.figure.dpi if self.given else self.figure.get_figwidth()
        text = "\n".join(textwrap.wrap(text, max(12, int(inches * 72 / (0.62 * size)))))  # bold letters are that wide
        page = self.figure
        shown = self.axes.set_title(text, loc="left") if self.given else page.suptitle(text, x=0.02, ha="left")
        shown.set(size=size, weight="bold")
        shown.set_parse_math(False)

    def legend(self) -> None:
        """What the lines are: below a page of one's own, inside given axes."""
        if self.given:
            self.axes.legend(frameon=False, labelcolor=INK, fontsize=9.0)
        else:
            self.figure.legend(loc="outside lower left", ncols=2, frameon=False, labelcolor=INK)


@contextmanager
def sheet(width: float, height: float, ax: Axes | None = None, *, panels: int = 1) -> Iterator[Sheet]:
    """A sheet in unbraid's style.

    Args:
        width: of a page of its own, in inches.
        height: of it.
        ax: draw here instead; parted where there are several panels.
        panels: how many axes there are, one below the other, with one scale from left to right.
    """
    with style():
        if ax is None:
            figure: Figure = Page(figsize=(width, height), layout="constrained")
            yield Sheet(figure, tuple(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]), given=False)
            return
        whole = ax.get_figure(root=True)
        assert whole is not None  # axes that have been removed from their figure
        yield Sheet(whole, _parted(ax, panels), given=True)


def _parted(ax: Axes, panels: int) -> tuple[Axes, ...]:
    if panels == 1:
        return (ax,)
    ax.set_axis_off()
    high = (1 - 0.12 * (panels - 1)) / panels
    insets = [ax.inset_axes((0.0, 1 - high - k * (high + 0.12), 1.0, high)) for k in range(panels)]
    for inset in insets[:-1]:
        inset.sharex(insets[-1])
        inset.tick_params(labelbottom=False)
    return tuple(insets)

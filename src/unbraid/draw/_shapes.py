"""The strokes from which the diagrams are made: wires, boxes, sums, gates, forks and labels. All lengths are inches."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle
from matplotlib.text import Text

from unbraid.draw._style import INK, MUTED, PAPER

__all__ = ["arrow", "beside", "box", "fork", "gate", "label", "plus", "wire"]

Point = tuple[float, float]


def wire(axes: Axes, points: Sequence[Point], *, color: str = INK, dashed: bool = False, width: float = 1.6) -> Line2D:
    """A line through the points, with corners rounded by the join alone."""
    xs, ys = zip(*points, strict=True)
    line = Line2D(
        xs,
        ys,
        color=color,
        linewidth=width,
        linestyle=(0, (3.2, 2.0)) if dashed else "-",
        solid_joinstyle="round",
        zorder=1.5 if dashed else 1,
    )
    axes.add_line(line)
    return line


def arrow(axes: Axes, start: Point, end: Point, *, color: str = INK) -> None:
    """A horizontal or vertical wire whose end is a small solid head."""
    axes.annotate(
        "",
        xy=end,
        xytext=start,
        arrowprops={
            "arrowstyle": "-|>,head_width=0.22,head_length=0.42",
            "color": color,
            "linewidth": 1.6,
            "shrinkA": 0,
            "shrinkB": 0,
        },
        zorder=1,
    )


def box(axes: Axes, center: Point, text: str, *, color: str, width: float, height: float, size: float = 11.0) -> Text:
    """A rounded box, tinted in `color`, with `text` in its middle."""
    x, y = center
    corner = (x - width / 2, y - height / 2)
    rounding = f"round,pad=0,rounding_size={min(width, height) * 0.22}"
    # A tint alone would let the wires beneath shine through: paper first, then the tint.
    axes.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=rounding, facecolor=PAPER, edgecolor="none", zorder=2)
    )
    axes.add_patch(
        FancyBboxPatch(
            corner, width, height, boxstyle=rounding, facecolor=color, alpha=0.18, edgecolor="none", zorder=3
        )
    )
    axes.add_patch(
        FancyBboxPatch(
            corner, width, height, boxstyle=rounding, facecolor="none", edgecolor=color, linewidth=1.5, zorder=4
        )
    )
    return axes.text(x, y, text, ha="center", va="center", size=size, zorder=5)


def plus(axes: Axes, center: Point, *, radius: float = 0.13, color: str = INK) -> None:
    """A sum: a circle with a cross in it."""
    x, y = center
    arm = radius * 0.55
    axes.add_patch(Circle(center, radius, facecolor=PAPER, edgecolor=color, linewidth=1.4, zorder=3))
    for line in (Line2D((x - arm, x + arm), (y, y)), Line2D((x, x), (y - arm, y + arm))):
        line.set(color=color, linewidth=1.4, zorder=4)
        axes.add_line(line)


def beside(axes: Axes, center: Point, *, radius: float = 0.13, color: str = INK) -> None:
    """A concatenation: two bars side by side in a square."""
    x, y = center
    axes.add_patch(
        Rectangle((x - radius, y - radius), 2 * radius, 2 * radius, facecolor=PAPER, edgecolor=color, lw=1.4, zorder=3)
    )
    for shift in (-0.38 * radius, 0.38 * radius):
        line = Line2D((x + shift, x + shift), (y - 0.55 * radius, y + 0.55 * radius))
        line.set(color=color, linewidth=1.4, zorder=4)
        axes.add_line(line)


def gate(axes: Axes, center: Point, *, radius: float = 0.13, color: str = INK) -> None:
    """A product, element by element: a circle with a dot in it."""
    axes.add_patch(Circle(center, radius, facecolor=PAPER, edgecolor=color, linewidth=1.4, zorder=3))
    axes.add_patch(Circle(center, radius * 0.3, facecolor=color, edgecolor="none", zorder=4))


def fork(axes: Axes, center: Point, *, radius: float = 0.045, color: str = INK) -> None:
    """The point at which one value goes two ways."""
    axes.add_patch(Circle(center, radius, facecolor=color, edgecolor="none", zorder=3))


def label(
    axes: Axes, at: Point, text: str, *, size: float = 10.0, muted: bool = False, ha: str = "center", va: str = "center"
) -> Text:
    """Text that belongs to no box."""
    return axes.text(*at, text, ha=ha, va=va, size=size, color=MUTED if muted else INK, zorder=5)

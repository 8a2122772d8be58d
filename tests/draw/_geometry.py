"""Where the texts of a figure lie, as the renderer places them."""

from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from unbraid.draw.theme import style


def texts(figure: Figure) -> dict[str, Bbox]:
    """The box of every visible text, in pixels, by the text and its number."""
    with style():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        every_axes = [axes for outer in figure.axes for axes in (outer, *outer.child_axes)]
        hidden = {text for axes in every_axes for text in _undrawn(axes)}
        every = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
        shown = [text for text in every if text not in hidden]
        return {f"{number}: {text.get_text()}": text.get_window_extent(renderer) for number, text in enumerate(shown)}


def _undrawn(axes: Axes) -> list[Text]:
    """Labels that exist and are not drawn: of an axis that is off, and of ticks beyond the ends of one that is on."""
    if not axes.axison:
        return [text for axis in (axes.xaxis, axes.yaxis) for text in axis.findobj(Text)]
    return [text for axis in (axes.xaxis, axes.yaxis) for text in _beyond(axis)]


def _beyond(axis: Axis) -> list[Text]:
    """The labels of ticks outside of the axis: they exist, but matplotlib does not draw them."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    beyond = [tick for tick in axis.majorTicks if not low - slack <= tick.get_loc() <= high + slack]
    return [label for tick in beyond for label in (tick.label1, tick.label2)]


def overlaps(boxes: dict[str, Bbox]) -> list[tuple[str, str]]:
    pairs = combinations(boxes.items(), 2)
    return [(a, b) for (a, one), (b, other) in pairs if one.overlaps(other) and _area(one, other) > 1.0]


def outside(figure: Figure, boxes: dict[str, Bbox]) -> list[str]:
    page = figure.bbox
    return [
        name
        for name, box in boxes.items()
        if box.x0 < page.x0 or box.y0 < page.y0 or box.x1 > page.x1 or box.y1 > page.y1
    ]


def _area(one: Bbox, other: Bbox) -> float:
    common = Bbox.intersection(one, other)
    return 0.0 if common is None else common.width * common.height


def assert_readable(figure: Figure) -> None:
    boxes = texts(figure)
    assert boxes, "a figure without words explains nothing"
    assert overlaps(boxes) == []
    assert outside(figure, boxes) == []

"""The types of matplotlib that signatures name; the package itself is imported where a figure is drawn.

Importing matplotlib takes longer than importing all of unbraid, so at run time the names stand for anything.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:
    Axes: TypeAlias = Any
    Figure: TypeAlias = Any

__all__ = ["Axes", "Figure"]

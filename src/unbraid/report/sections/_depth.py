"""Plain against residual, by depth."""

import math
from collections.abc import Sequence

from unbraid import draw
from unbraid.report._content import Column, Picture, Section, Table, finite

__all__ = ["depth"]


def depth(curves: Sequence[draw.DepthCurve]) -> Section:
    """The section that compares kinds of networks at several depths.

    Args:
        curves: the test errors of each kind, in percent.

    Raises:
        ValueError: no curve, or more than six.
    """
    figure = draw.depth(curves)
    said = "; ".join(_sentence(curve) for curve in curves)
    rows = [
        (curve.name, depth, curve.mean(at), *curve.spread(at), len(runs))
        for curve in curves
        for at, (depth, runs) in enumerate(zip(curve.depths, curve.errors, strict=True))
    ]
    columns = (
        Column("Network"),
        Column("Depth", "blocks"),
        Column("Mean test error", "%", ".1f"),
        Column("Least", "%", ".1f"),
        Column("Greatest", "%", ".1f"),
        Column("Runs"),
    )
    cells = [tuple(finite(cell) for cell in row) for row in rows]
    caption = (
        "Mean test error over the seeds; the bars span the least and the greatest. Runs that diverged are left out."
    )
    parts = (
        Picture(draw.svg(figure), caption, f"Test error against depth. {said}"),
        Table(columns, cells, "The same in numbers."),
    )
    return Section("Depth: plain against residual", f"{said[0].upper()}{said[1:]}.", parts)


def _sentence(curve: draw.DepthCurve) -> str:
    """From the shallowest to the deepest, in numbers."""
    first, last = curve.mean(0), curve.mean(-1)
    if len(curve.depths) == 1:
        return f"At {curve.depths[0]} blocks the {curve.name} network errs on {_percent(last)}"
    return (
        f"from {curve.depths[0]} to {curve.depths[-1]} blocks the {curve.name} network "
        f"goes from {_percent(first)} to {_percent(last)} test error"
    )


def _percent(error: float) -> str:
    return f"{error:.1f} %" if math.isfinite(error) else "divergence"

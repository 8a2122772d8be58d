"""Plain against residual, by depth."""

import math
from collections.abc import Sequence

from unbraid import draw
from unbraid.reports._content import Column, Picture, Section, Table, finite

__all__ = ["depth"]


def depth(curves: Sequence[draw.DepthCurve]) -> Section:
    """The section that compares kinds of networks at several depths.

    Args:
        curves: the test errors of each kind, in percent.

    Raises:
        ValueError: no curve, or more than six.
    """
    figure = draw.depth(curves)
    said = f"Test error: {'; '.join(_sentence(curve) for curve in curves)}."
    rows: list[tuple[str | float, ...]] = []
    for curve in curves:
        for at, (depth, runs) in enumerate(zip(curve.depths, curve.errors, strict=True)):
            rows.append((curve.name, depth, curve.mean(at), *curve.spread(at), len(runs)))
    columns = (
        Column("Network"),
        Column("Depth", "blocks"),
        Column("Mean test error", "%", ".1f"),
        Column("Least", "%", ".1f"),
        Column("Greatest", "%", ".1f"),
        Column("Runs"),
    )
    cells = [tuple(map(finite, row)) for row in rows]
    caption = (
        "Mean test error over the seeds; the bars span the least and the greatest. Runs that diverged are left out."
    )
    parts = (
        Picture(draw.svg(figure), caption, f"Lines of test error against depth. {said}"),
        Table(columns, cells, "The same in numbers."),
    )
    return Section("Depth: plain against residual", said, parts)


def _sentence(curve: draw.DepthCurve) -> str:
    """From the shallowest to the deepest, in numbers."""
    ends = sorted({0, len(curve.depths) - 1})
    said = [f"{_outcome(curve.mean(at))} at {curve.depths[at]}{' blocks' if at == 0 else ''}" for at in ends]
    return f"{curve.name} {', '.join(said)}"


def _outcome(error: float) -> str:
    return f"{error:.1f} %" if math.isfinite(error) else "diverged"

"""What is lost without a block, and with blocks in another order."""

from statistics import median
from typing import TYPE_CHECKING

from unbraid import draw
from unbraid.reports._content import Code, Column, Part, Picture, Section, Table, Text

if TYPE_CHECKING:
    from unbraid.lesions import LesionStudy, ReorderStudy

__all__ = ["lesions", "reorderings"]


def lesions(found: "LesionStudy", quantity: str, remark: str, python: str) -> Section:
    """The section on single deletions.

    Args:
        found: every block deleted in turn.
        quantity: what was measured, with its unit.
        remark: what a reader must know of the labels; empty where nothing.
        python: code that gives the same.
    """
    worst, changes = found.ranked[0], sorted(found.delta)
    finding = (
        f"Without one block the {quantity} changes by {median(changes):+.3g} (median of {len(changes)} blocks, "
        f"{changes[0]:+.3g} to {changes[-1]:+.3g}), from {found.whole:.4g}; most without {found.names[worst]}."
    )
    columns = (
        Column("Without"),
        Column("Name"),
        Column("Metric", format=".4g"),
        Column("Change", format="+.4g"),
    )
    rows = [
        (which[0] if isinstance(which[0], int) else str(which[0]), name, metric, change)
        for which, name, metric, change in zip(found.sets, found.names, found.metrics, found.delta, strict=True)
    ]
    figure = Picture(
        draw.svg(found.plot(quantity)),
        f"The {quantity} without each block, over {found.examples:,} examples; the line is the whole model.",
        f"Bars for {len(rows)} deletions; most is lost without {found.names[worst]}.",
    )
    said: list[Part] = [Text(remark)] if remark else []
    return Section("Lesions", finding, [*said, figure, Table(columns, rows, "One deletion a row."), Code(python)])


def reorderings(found: "ReorderStudy", quantity: str, python: str) -> Section:
    """The section on other orders."""
    groups: dict[int, list[int]] = {swaps: [] for swaps in sorted(set(found.swaps))}
    for row, swaps in enumerate(found.swaps):
        groups[swaps].append(row)

    def mean(numbers: tuple[float, ...], rows: list[int]) -> float:
        return sum(numbers[row] for row in rows) / len(rows)

    most = max(groups)
    finding = (
        f"With {most} random swaps of blocks of equal shape, Kendall's τ {mean(found.tau, groups[most]):.2f}, the "
        f"{quantity} goes from {found.whole:.4g} to {mean(found.metrics, groups[most]):.4g}, mean of "
        f"{len(groups[most])} orders."
    )
    columns = (
        Column("Swaps"),
        Column("Orders"),
        Column("Kendall's τ, mean", format=".3f"),
        Column("Metric, mean", format=".4g"),
        Column("Least", format=".4g"),
        Column("Most", format=".4g"),
    )
    rows: list[tuple[float, ...]] = []
    for swaps, chosen in groups.items():
        metrics = [found.metrics[row] for row in chosen]
        means = mean(found.tau, chosen), mean(found.metrics, chosen)
        rows.append((swaps, len(chosen), *means, min(metrics), max(metrics)))
    figure = Picture(
        draw.svg(found.plot(quantity)),
        f"The {quantity} in other orders, over {found.examples:,} examples.",
        "Points of the metric against Kendall's τ of the order.",
    )
    return Section("Other orders", finding, [figure, Table(columns, rows, "One number of swaps a row."), Code(python)])

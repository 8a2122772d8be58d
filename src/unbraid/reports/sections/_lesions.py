"""What is lost without a block, and with blocks in another order."""

from statistics import median
from typing import TYPE_CHECKING

from unbraid import draw
from unbraid.reports._content import Code, Column, Part, Picture, Section, Table, Text

if TYPE_CHECKING:
    from unbraid.lesions import LesionStudy, ReorderStudy

__all__ = ["lesions", "reorderings"]


def lesions(study: "LesionStudy", quantity: str, remark: str, python: str) -> Section:
    """The section on single deletions.

    Args:
        study: every block deleted in turn.
        quantity: what was measured, with its unit.
        remark: what a reader must know of the labels; empty where nothing.
        python: code that gives the same.
    """
    worst, changes = study.ranked[0], sorted(study.delta)
    finding = (
        f"Without one block the {quantity} changes by {median(changes):+.3g} (median of {len(changes)} blocks, "
        f"{changes[0]:+.3g} to {changes[-1]:+.3g}), from {study.whole:.4g}; most without {study.names[worst]}."
    )
    columns = (
        Column("Without"),
        Column("Name"),
        Column("Metric", format=".4g"),
        Column("Change", format="+.4g"),
    )
    rows = [
        (which[0] if isinstance(which[0], int) else str(which[0]), name, metric, change)
        for which, name, metric, change in zip(study.sets, study.names, study.metrics, study.delta, strict=True)
    ]
    figure = Picture(
        draw.svg(study.plot(quantity)),
        f"The {quantity} without each block, over {study.examples:,} examples; the line is the whole model.",
        f"Bars for {len(rows)} deletions; most is lost without {study.names[worst]}.",
    )
    said: list[Part] = [Text(remark)] if remark else []
    return Section("Lesions", finding, [*said, figure, Table(columns, rows, "One deletion a row."), Code(python)])


def reorderings(study: "ReorderStudy", quantity: str, python: str) -> Section:
    """The section on other orders."""
    groups: dict[int, list[int]] = {swaps: [] for swaps in sorted(set(study.swaps))}
    for row, swaps in enumerate(study.swaps):
        groups[swaps].append(row)

    def mean(numbers: tuple[float, ...], rows: list[int]) -> float:
        return sum(numbers[row] for row in rows) / len(rows)

    most = max(groups)
    finding = (
        f"With {most} random swaps of blocks of equal shape, Kendall's τ {mean(study.tau, groups[most]):.2f}, the "
        f"{quantity} goes from {study.whole:.4g} to {mean(study.metrics, groups[most]):.4g}, mean of "
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
        metrics = [study.metrics[row] for row in chosen]
        means = mean(study.tau, chosen), mean(study.metrics, chosen)
        rows.append((swaps, len(chosen), *means, min(metrics), max(metrics)))
    figure = Picture(
        draw.svg(study.plot(quantity)),
        f"The {quantity} in other orders, over {study.examples:,} examples.",
        "Points of the metric against Kendall's τ of the order.",
    )
    return Section("Other orders", finding, [figure, Table(columns, rows, "One number of swaps a row."), Code(python)])

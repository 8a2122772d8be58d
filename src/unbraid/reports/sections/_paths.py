"""The gradient by the length of its paths."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unbraid import draw
from unbraid.reports._content import Cell, Code, Column, Part, Picture, Section, Table, finite
from unbraid.reports._content import count as count_of

if TYPE_CHECKING:
    from unbraid.paths import GradientSpectrum

__all__ = ["PathFacts", "overstated", "paths"]


@dataclass(frozen=True)
class PathFacts:
    """A gradient split by the number of branches that its paths pass (Equation 11.6).

    Attributes:
        network: whose gradient it is.
        target: of what the gradient is, in words.
        counts: the number of paths of each length, from 0.
        norms: the norm of each length's part, averaged over the examples.
        share: the same over its sum.
        effective: the shortest interval of lengths that holds 95 % of the share.
        error: how far the parts' sum is from autograd's gradient, relative in the largest norm.
        examples: over how many examples the norms are averaged.
        sampled: the mean norm of single paths of each length; None where nothing was sampled.
        python: code that gives the same.
    """

    network: str
    target: str
    counts: Sequence[int]
    norms: Sequence[float]
    share: Sequence[float]
    effective: tuple[int, int]
    error: float
    examples: int
    sampled: Sequence[float] | None = None
    python: str = ""

    @staticmethod
    def of(
        network: str, target: str, spectrum: "GradientSpectrum", sampled: Sequence[float] | None, python: str = ""
    ) -> "PathFacts":
        """The facts of a spectrum, and of random paths beside it."""
        return PathFacts(
            network=network,
            target=target,
            counts=spectrum.counts,
            norms=spectrum.norms.tolist(),
            share=spectrum.share.tolist(),
            effective=spectrum.effective,
            error=spectrum.error,
            examples=spectrum.gradients.shape[1],
            sampled=sampled,
            python=python,
        )


def paths(facts: PathFacts) -> Section:
    """The section on paths: the spectrum as a figure and as a table, and its check.

    Raises:
        ValueError: the lists differ in length.
    """
    low, high = facts.effective
    number = count_of(sum(facts.counts))
    lengths = f"{low} branches" if low == high else f"{low} to {high} branches"
    finding = (
        f"95 % of the norm of the gradient of {facts.target} travels paths of {lengths}, of at most "
        f"{len(facts.counts) - 1}; all {number} paths are counted, and their sum equals autograd's "
        f"gradient to {facts.error:.1e}."
    )
    columns = [
        Column("Length", "branches"),
        Column("Paths", format=","),
        Column("Norm of their sum", format=".4g"),
        Column("Share", "%", ".2f"),
    ]
    parts_of = enumerate(zip(facts.counts, facts.norms, facts.share, strict=True))
    rows: list[tuple[Cell, ...]] = [(length, count, norm, 100 * share) for length, (count, norm, share) in parts_of]
    caption = f"Norms per example, mean over {facts.examples:,} examples."
    if facts.sampled is not None:
        columns += [Column("Norm of one path", format=".4g"), Column("Count × norm over the exact norm", format=".4g")]
        times = map(overstated, facts.counts, facts.sampled, facts.norms)
        rows = [(*row, finite(norm), finite(time)) for row, norm, time in zip(rows, facts.sampled, times, strict=True)]
        caption += (
            " The norm of one path is a mean over random paths (Veit et al. 2016); times their number it leaves out "
            "that paths cancel."
        )
    figure = draw.spectrum(facts.counts, facts.share, facts.effective, facts.sampled)
    check = Table(
        (Column("Check"), Column("Relative error", format=".2e")),
        [("sum over lengths against autograd", facts.error)],
        "‖Σ lengths − gradient‖∞ / ‖gradient‖∞.",
    )
    alt = f"Lines over path lengths 0 to {len(facts.counts) - 1}; 95 % of the gradient lies in {low} to {high}."
    parts: list[Part] = [
        Picture(draw.svg(figure), f"{caption} Shaded: the lengths that hold 95 %.", alt),
        Table(tuple(columns), rows, "The same in numbers."),
        check,
    ]
    if facts.python:
        parts.append(Code(facts.python))
    return Section("The gradient by path length", finding, parts)


def overstated(count: int, norm: float, exact: float) -> float:
    """By how much count × mean norm overstates the norm of the sum; nan where nothing passes."""
    return count * norm / exact if exact and math.isfinite(norm) else math.nan

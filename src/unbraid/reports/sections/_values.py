"""The target itself by the length of its paths."""

from typing import TYPE_CHECKING

from unbraid import draw
from unbraid.reports._content import Code, Column, Picture, Section, Table

if TYPE_CHECKING:
    from unbraid.paths import ValueSpectrum

__all__ = ["values"]


def values(spectrum: "ValueSpectrum", said: str, python: str) -> Section:
    """The section on values: what paths of each length add to the target."""
    moving, fixed = spectrum.from_input.mean(1).tolist(), spectrum.from_constants.mean(1).tolist()
    examples = spectrum.from_input.shape[1]
    finding = (
        f"Of {said}, {float(spectrum.target.mean()):.4g} on average over {examples:,} examples, the paths from "
        f"the input make {sum(moving):+.4g} and those from constants {sum(fixed):+.4g}; all lengths sum to it to "
        f"{spectrum.error:.1e}."
    )
    columns = (
        Column("Length", "branches"),
        Column("Paths", format=","),
        Column("From the input", format="+.4g"),
        Column("From constants", format="+.4g"),
    )
    rows = [(m, *row) for m, row in enumerate(zip(spectrum.counts, moving, fixed, strict=True))]
    caption = (
        "Every non-linear factor is held at its value, so that the target is a sum over paths; mean over examples."
    )
    alt = f"Bars of what paths of lengths 0 to {len(rows) - 1} add."
    figure = Picture(draw.svg(spectrum.plot()), caption, alt)
    return Section(
        "The target by path length", finding, [figure, Table(columns, rows, "The same in numbers."), Code(python)]
    )

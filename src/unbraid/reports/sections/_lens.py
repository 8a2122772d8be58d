"""What the model would say after each block."""

from typing import TYPE_CHECKING

from unbraid import draw
from unbraid.reports._content import Code, Column, Picture, Section, Table

if TYPE_CHECKING:
    from unbraid.terms import Lens

__all__ = ["lens"]

_AGREES = 0.9


def lens(study: "Lens", examples: int, python: str) -> Section:
    """The section on the lens: agreement and divergence after each block."""
    shares, far = study.agreement.tolist(), study.divergence.tolist()
    from_here = len(shares) - 1
    while from_here > 0 and shares[from_here - 1] >= _AGREES:
        from_here -= 1
    half = len(shares) // 2
    finding = (
        f"Read off after {study.names[half]}, halfway, the model says on {100 * shares[half]:.0f} % of the predictions "
        f"what it says at its end; from {study.names[from_here]} on, on {100 * _AGREES:.0f} % or more."
    )
    columns = (
        Column("Up to"),
        Column("Same prediction", "%", ".1f"),
        Column("Divergence from the whole model", "nats", ".4g"),
    )
    rows = [(name, 100 * share, kl) for name, share, kl in zip(study.names, shares, far, strict=True)]
    caption = f"The head applied to the partial sums of the terms, its scale {study.scale}; {examples:,} examples."
    figure = Picture(draw.svg(study.plot()), caption, f"Agreement and divergence after each of {len(rows)} terms.")
    return Section("The lens", finding, [figure, Table(columns, rows, "The same in numbers."), Code(python)])

"""Signals and gradients through depth."""

from typing import TYPE_CHECKING

from unbraid import draw
from unbraid.reports._content import Code, Column, Part, Picture, Section, Table, Text, finite

if TYPE_CHECKING:
    from unbraid.gradients import Autocorrelation, Coherence, Diagnosis

__all__ = ["alike", "neighbours", "signal"]


def signal(diagnosis: "Diagnosis", python: str) -> Section:
    """The section on signal propagation, with what stands out in words."""
    seen = diagnosis.signal
    first, last = float(seen.source.variance[0]), float(seen.sum.variance[-1])
    gradient = seen.gradient.tolist()
    finding = (
        f"Over {len(seen.names)} blocks the variance of the stream goes from {first:.3g} to {last:.3g}, and the "
        f"gradient of the loss from {gradient[-1]:.3g} at the last block to {gradient[0]:.3g} at the first; "
        f"{_outstanding(len(diagnosis.findings))}."
    )
    columns = (
        Column("Block"),
        Column("Name"),
        Column("Squared mean", format=".3g"),
        Column("Variance", format=".3g"),
        Column("Of the skip", format=".3g"),
        Column("Of the branch", format=".3g"),
        Column("Correlation", format="+.3f"),
        Column("Gradient", format=".3g"),
    )
    measured = zip(
        seen.sum.squared_mean.tolist(),
        seen.sum.variance.tolist(),
        seen.skip.variance.tolist(),
        seen.branch.variance.tolist(),
        seen.correlation.tolist(),
        gradient,
        strict=True,
    )
    rows = [(k, name, *map(finite, row)) for k, (name, row) in enumerate(zip(seen.names, measured, strict=True))]
    figure = Picture(
        draw.svg(seen.plot()),
        f"Mean over channels of the variance over {seen.examples:,} examples and all positions (Brock et al. 2021), "
        "and the mean norm of the gradient of the loss.",
        "Lines of variance and gradient by block.",
    )
    said: list[Part] = [Text(f"{one.what.capitalize()}: {one.words} {one.helps}") for one in diagnosis.findings[:8]]
    more = len(diagnosis.findings) - 8
    said += [Text(f"And {more} more: print(unbraid.diagnose(model, batches)).")] if more > 0 else []
    return Section(
        "Signal propagation", finding, [*said, figure, Table(columns, rows, "One block a row."), Code(python)]
    )


def _outstanding(number: int) -> str:
    return {0: "nothing stands out", 1: "one thing stands out"}.get(number, f"{number} things stand out")


def alike(coherence: "Coherence", python: str) -> Section:
    """The section on the gradients of different examples."""
    cosine = coherence.cosine.tolist()
    finding = (
        f"The gradients of different examples have a mean cosine of {cosine[0]:+.3f} at {coherence.names[0]} and "
        f"{cosine[-1]:+.3f} at {coherence.names[-1]}, over {coherence.examples:,} examples; 0 would be no relation, as "
        "examples of different classes may well have."
    )
    columns = (
        Column("Block"),
        Column("Mean cosine", format="+.4f"),
        Column("Norm of the mean over mean norm", format=".4f"),
        Column("Mean norm", format=".3g"),
    )
    rows = list(zip(coherence.names, cosine, coherence.ratio.tolist(), coherence.norms.tolist(), strict=True))
    figure = Picture(
        draw.svg(coherence.plot()),
        "How alike the gradients of different examples are. What shatters is seen between neighbouring inputs.",
        "Lines of mean cosine and ratio by block.",
    )
    return Section("Gradients of examples", finding, [figure, Table(columns, rows, "One block a row."), Code(python)])


def neighbours(curve: "Autocorrelation", lines: int, python: str) -> Section:
    """The section on gradients at neighbouring inputs."""
    values = curve.values.tolist()
    finding = (
        f"Along {lines} lines between examples, in steps of {curve.spacing:.2g}, the gradients of neighbouring inputs "
        f"correlate by {values[1]:.2f}, and five steps apart by {values[min(5, len(values) - 1)]:.2f}; white noise "
        "would give 0."
    )
    columns = (Column("Lag", "steps"), Column("Autocorrelation", format="+.4f"))
    rows = list(enumerate(values))
    figure = Picture(
        draw.svg(curve.plot()),
        f"Autocorrelation of the derivative along a line, mean over {lines} lines (figure 11.3; Balduzzi et al. 2017).",
        f"A line over lags 0 to {len(values) - 1}.",
    )
    return Section(
        "Shattering: neighbouring inputs", finding, [figure, Table(columns, rows, "One lag a row."), Code(python)]
    )

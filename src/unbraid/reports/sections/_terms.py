"""The terms of the output: the input's, and one per block."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unbraid import draw
from unbraid.reports._content import Code, Column, Part, Picture, Section, Table

__all__ = ["TermFacts", "terms"]


@dataclass(frozen=True)
class TermFacts:
    """The terms of the stream that reaches the output (Equation 11.5).

    Attributes:
        network: what they are the terms of.
        names: the input's term first, then one per block, in order of execution.
        norms: the norm of each, averaged over the examples, in the units of the stream.
        error: how far their sum is from the stream, ‖Σ − h‖∞ / ‖h‖∞.
        examples: over how many examples the norms are averaged.
        python: code that gives the same.
    """

    network: str
    names: Sequence[str]
    norms: Sequence[float]
    error: float
    examples: int
    python: str = ""


def terms(facts: TermFacts) -> Section:
    """The section on the terms: a bar and a row for each.

    Raises:
        ValueError: names and norms differ in number, there are none, or a norm is negative or not finite.
    """
    figure = draw.terms(facts.names, facts.norms)
    total = math.fsum(facts.norms)
    shares = [100 * norm / total if total else 0.0 for norm in facts.norms]
    largest = max(range(len(shares)), key=lambda term: shares[term])
    finding = (
        f"The output of {facts.network} is a sum of {len(facts.names)} terms, exact to {facts.error:.1e}; "
        f"the largest, {facts.names[largest]}, holds {shares[largest]:.1f} % of their norms together."
    )
    columns = (Column("Term"), Column("Norm", format=".4g"), Column("Share", "%", ".1f"))
    rows = list(zip(facts.names, facts.norms, shares, strict=True))
    caption = f"Norm of each term in the units of the stream, mean over {facts.examples:,} test examples."
    check = Table(
        (Column("Check"), Column("Relative error", format=".2e")),
        [("sum of the terms against the stream", facts.error)],
        "‖Σ terms − stream‖∞ / ‖stream‖∞.",
    )
    alt = f"Bars of the norms of {len(rows)} terms; the largest is {facts.names[largest]}."
    parts: list[Part] = [
        Picture(draw.svg(figure), caption, alt),
        Table(columns, rows, "The same in numbers, with the share of all norms together."),
        check,
    ]
    if facts.python:
        parts.append(Code(facts.python))
    return Section("The terms", finding, parts)

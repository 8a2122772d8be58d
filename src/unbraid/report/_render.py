"""A page as HTML and as plain data. Both come from the same values."""

import base64
import hashlib
import math
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unbraid.report._content import Cell, Code, Column, Equation, Page, Part, Picture, Section, Table, Text, finite
from unbraid.report._svg import inline

__all__ = ["render", "to_dict"]


def render(page: Page) -> str:
    """The page as one HTML document that needs nothing else and may ask nobody for anything.

    Every text is escaped: names of models are not ours. The content security policy in the page forbids every
    request, and every style but the page's own, which it names by its hash.

    Raises:
        ValueError: a picture holds more than shapes.
    """
    environment = _environment()
    style = _source(environment, "style.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    drawings = _drawings(page)
    template = environment.get_template("page.html.j2")
    # Markup marks what is not to be escaped: our own style sheet and drawings that `inline` let through.
    return template.render(
        page=page,
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'",
        drawings=drawings,
        number=_number,
    )


def to_dict(page: Page) -> dict[str, Any]:
    """All that the page says, numbers in full, ready for JSON; None where a number is not finite."""
    return {
        "title": page.title,
        "summary": page.summary,
        "sections": [_section_dict(section) for section in page.sections],
    }


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("unbraid.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _drawings(page: Page) -> dict[tuple[int, int], Markup]:
    """The drawing of every picture, by the numbers of section and part, each with ids of its own."""
    return {
        (s, p): Markup(inline(part.svg, prefix=f"figure-{s}-{p}-", label=part.alt))
        for s, section in enumerate(page.sections, start=1)
        for p, part in enumerate(section.parts, start=1)
        if isinstance(part, Picture)
    }


def _number(cell: Cell) -> str | None:
    """The value in full, for sorting and for whoever compares with report.json; None for what is no number."""
    return repr(cell) if isinstance(cell, int | float) and math.isfinite(cell) else None


def _section_dict(section: Section) -> dict[str, Any]:
    parts = [_part_dict(part) for part in section.parts]
    return {"title": section.title, "finding": section.finding, "parts": parts}


def _part_dict(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            said: dict[str, Any] = {"text": part.text}
        case Table():
            columns = [_column_dict(column) for column in part.columns]
            rows = [[finite(cell) for cell in row] for row in part.rows]
            said = {"caption": part.caption, "columns": columns, "rows": rows}
        case Picture():
            said = {"caption": part.caption, "alt": part.alt}
        case Code():
            said = {"python": part.python}
        case Equation():
            said = {"text": part.text, "latex": part.latex}
    return {"kind": part.kind, **said}


def _column_dict(column: Column) -> dict[str, str]:
    return {"heading": column.heading, "unit": column.unit}

"""A page as HTML and as plain data. Both come from the same values."""

import base64
import hashlib
import json
import math
from functools import cache
from itertools import chain
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unbraid.reports._content import (
    Braid,
    Cell,
    Code,
    Column,
    Equation,
    Page,
    Part,
    Picture,
    Section,
    Table,
    Text,
    finite,
)
from unbraid.reports._svg import inline

__all__ = ["render", "to_dict"]

_FOLD = 24  # rows beyond which a table is folded


def render(page: Page) -> str:
    """The page as one HTML document that needs nothing else and may ask nobody for anything.

    Every text is escaped: names of models are not ours. The content security policy in the page forbids every
    request, and every style and script but the page's own, which it names by their hashes.

    Raises:
        ValueError: a picture holds more than shapes.
    """
    environment = _environment()
    style = _source(environment, "style.css")
    parts = chain.from_iterable(section.parts for section in page.sections)
    braids = any(isinstance(part, Braid) for part in parts)
    scripts = [_source(environment, name) for name in ("page.js", *(["braid.js"] if braids else []))]
    drawings = _drawings(page)
    template = environment.get_template("page.html.j2")
    # Markup marks what is not to be escaped: our own style sheet and scripts, and drawings that `inline` let through.
    return template.render(
        page=page,
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        policy=_policy(style, scripts),
        drawings=drawings,
        number=_number,
        data=_island,
        fold=_FOLD,
    )


def to_dict(page: Page) -> dict[str, Any]:
    """All that the page says, numbers in full, ready for JSON; None where a number is not finite."""
    return {
        "title": page.title,
        "summary": page.summary,
        "sections": [_section_dict(section) for section in page.sections],
    }


def _policy(style: str, scripts: list[str]) -> str:
    def hashes(*texts: str) -> str:
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in texts)

    return (
        f"default-src 'none'; style-src {hashes(style)}; script-src {hashes(*scripts)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _island(part: Braid) -> Markup:
    """The values of a braid as JSON that cannot end the element in which it stands."""
    text = json.dumps(part.data, ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("unbraid.reports"),
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
    drawings = {}
    for s, section in enumerate(page.sections, start=1):
        for p, part in enumerate(section.parts, start=1):
            if isinstance(part, Picture):
                drawings[s, p] = Markup(inline(part.svg, prefix=f"figure-{s}-{p}-", label=part.alt))
    return drawings


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
            rows = [list(map(finite, row)) for row in part.rows]
            said = {"caption": part.caption, "columns": columns, "rows": rows}
        case Picture():
            said = {"caption": part.caption, "alt": part.alt}
        case Code():
            said = {"python": part.python}
        case Equation():
            said = {"text": part.text, "latex": part.latex}
        case Braid():
            said = dict(part.data)
    return {"kind": part.kind, **said}


def _column_dict(column: Column) -> dict[str, str]:
    return {"heading": column.heading, "unit": column.unit}

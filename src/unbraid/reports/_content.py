"""What a report says, as values: pages hold sections, sections hold parts. How it looks is the template's business."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, TypeAlias, final

__all__ = [
    "Braid",
    "Cell",
    "Code",
    "Column",
    "Equation",
    "Page",
    "Part",
    "Picture",
    "Section",
    "Table",
    "Text",
    "finite",
]

Cell: TypeAlias = str | int | float | None


def finite(cell: Cell) -> Cell:
    """The cell, or None where it is a number that is not finite: neither a page nor JSON has a way to write that."""
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def count(number: int) -> str:
    """A count as text: with commas, and with four digits and an exponent where it has more than fifteen."""
    return f"{number:,}" if abs(number) < 10**15 else f"{Decimal(number):.3e}"


@final
@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@final
@dataclass(frozen=True)
class Column:
    """The head of a column.

    Attributes:
        heading: what the column holds.
        unit: the unit of its numbers; empty where they have none.
        format: how the page writes them, as in `format(number, ...)`; report.json holds them in full.
    """

    heading: str
    unit: str = ""
    format: str = ""

    def show(self, cell: Cell) -> str:
        """The cell as the page shows it: a dash where there is nothing, words for what is not finite."""
        if cell is None:
            return "–"
        if isinstance(cell, int) and self.format == ",":
            return count(cell)
        return cell if isinstance(cell, str) else format(cell, self.format)


@final
@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        columns: the heads, from the left.
        rows: one cell per column in each.
        caption: what the table shows.

    Raises:
        ValueError: a row has more or fewer cells than there are columns.
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"Table {self.caption!r}: row {number} has {len(row)} cells; there are {len(self.columns)} columns."
                )

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers alone, and so is set flush right."""
        cells = [row[column] for row in self.rows if row[column] is not None]
        return bool(cells) and not any(isinstance(cell, str) for cell in cells)


@final
@dataclass(frozen=True)
class Picture:
    """A drawing.

    Attributes:
        svg: as `unbraid.draw.svg` gives it.
        caption: how it was made, below the picture.
        alt: what it shows, for those who do not see it.
    """

    kind: ClassVar[str] = "picture"
    svg: str
    caption: str
    alt: str


@final
@dataclass(frozen=True)
class Code:
    """Python that gives the same numbers."""

    kind: ClassVar[str] = "code"
    python: str


@final
@dataclass(frozen=True)
class Equation:
    """An equation in plain characters, and its LaTeX to copy."""

    kind: ClassVar[str] = "equation"
    text: str
    latex: str


@final
@dataclass(frozen=True)
class Braid:
    """The network as a braid that can be picked apart: the page draws it from these values.

    Attributes:
        data: plain values, ready for JSON; `unbraid.report` fills them and the page's script reads them.
    """

    kind: ClassVar[str] = "braid"
    data: Mapping[str, Any]


Part: TypeAlias = Text | Table | Picture | Code | Equation | Braid


@final
@dataclass(frozen=True)
class Section:
    """One subject.

    Attributes:
        title: its heading.
        finding: one sentence that says in numbers what was found.
        parts: what supports it.
    """

    title: str
    finding: str
    parts: Sequence[Part] = ()


@final
@dataclass(frozen=True)
class Page:
    """A whole report: its title, a sentence below it, and its sections in order."""

    title: str
    sections: Sequence[Section]
    summary: str = ""

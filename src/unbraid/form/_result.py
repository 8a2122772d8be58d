import html
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Result(ABC):
    """What every result of an analysis offers: a table, plain values, a figure, and the table in a notebook."""

    @abstractmethod
    def table(self) -> Table:
        """The result as a table for the terminal."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The result as plain values."""

    @abstractmethod
    def plot(self) -> "Figure":
        """The result as a matplotlib figure."""

    def _repr_html_(self) -> str:
        return as_html(self.table())


def as_html(table: Table) -> str:
    """A table of the terminal for a notebook; names come from the model and are escaped."""
    head = "".join(f'<th scope="col">{_text(column.header)}</th>' for column in table.columns)
    rows = zip(*(column.cells for column in table.columns), strict=True)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    said = [text for text in (table.title, table.caption) if text]
    caption = f"<caption>{'; '.join(map(_text, said))}</caption>" if said else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(cell: object) -> str:
    return html.escape(str(cell))

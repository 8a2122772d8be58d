"""A result as rows of plain values, and rows as a table for the terminal or a notebook.

A result declares its columns once, each a heading and how a row is shown under it, in the language of `str.format`:

    columns = (("block", "{name}"), ("share", "{share:.1%}"), ("95 % of the mean", "{low:+.3f} to {high:+.3f}"))

A *row* is a dict of plain values by name. A column whose text has a format (after the colon) holds numbers and stands
on the right; the others hold names and stand on the left. A percentage is written "12.5 %", with a space.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from string import Formatter
from typing import Any, TypeAlias

from rich.table import Table
from torch import Tensor

Row: TypeAlias = dict[str, Any]
Column: TypeAlias = tuple[str, str]  # the heading, and how a row is shown under it


def as_rows(columns: Mapping[str, Iterable[Any]]) -> list[Row]:
    """Columns of equal length as rows; tensors as plain numbers."""
    plain_columns = [column.tolist() if isinstance(column, Tensor) else column for column in columns.values()]
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*plain_columns, strict=True)]


def numbered(rows: Sequence[Row]) -> list[Row]:
    """Each row with its number, from 0."""
    return [{"number": number, **row} for number, row in enumerate(rows)]


def plain(value: Any) -> Any:
    """A value as JSON holds it: tensors and tuples as lists, data classes as dicts, paths as text."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value):
        return {entry.name: plain(getattr(value, entry.name)) for entry in fields(value)}
    return value


def fill(table: Table, columns: Sequence[Column], rows: Iterable[Row]) -> Table:
    """The table with a column for each of these, and a line for each row."""
    shown = _Shown()
    for heading, text in columns:
        table.add_column(heading, justify="right" if _of_numbers(text) else "left")
    for row in rows:
        table.add_row(*(shown.vformat(text, (), row) for _, text in columns))
    return table


class _Shown(Formatter):
    """`str.format` that writes "12.5 %" for 0.125."""

    def format_field(self, value: Any, format_spec: str) -> str:
        text = str(super().format_field(value, format_spec))
        return f"{text[:-1]} %" if format_spec.endswith("%") else text


def _of_numbers(text: str) -> bool:
    """Whether any of what is shown has a format of numbers."""
    return any(spec for _, _, spec, _ in Formatter().parse(text))


def as_html(table: Table) -> str:
    """A table of the terminal for a notebook; names come from the model and are escaped."""
    sides = [' style="text-align:right"' if c.justify == "right" else ' style="text-align:left"' for c in table.columns]
    head = "".join(
        f'<th scope="col"{side}>{_text(column.header)}</th>' for column, side in zip(table.columns, sides, strict=True)
    )
    lines = zip(*(column.cells for column in table.columns), strict=True)
    body = "".join(_html_row(line, sides) for line in lines)
    said = [text for text in (table.title, table.caption) if text]
    caption = f"<caption>{'; '.join(map(_text, said))}</caption>" if said else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_row(line: tuple[object, ...], sides: list[str]) -> str:
    cells = [f"<td{side}>{_text(cell)}</td>" for cell, side in zip(line, sides, strict=True)]
    return f"<tr>{''.join(cells)}</tr>"


def _text(cell: object) -> str:
    return html.escape(str(cell))

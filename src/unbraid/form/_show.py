"""How a form is shown: text, a table for the terminal, HTML for a notebook."""

import html
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from unbraid.form._block import Block
    from unbraid.form._form import ResidualForm

_COLUMNS = ("", "block", "skip", "branches", "after", "nested", "shape", "parameters", "where")


def form_table(form: "ResidualForm") -> Table:
    """The blocks, one a row; the measured error below."""
    table = Table(box=box.SIMPLE_HEAD, title=headline(form), title_justify="left", caption=footline(form))
    table.caption_justify = "left"
    for column in _COLUMNS:
        table.add_column(column, justify="right" if column in {"", "nested", "parameters"} else "left")
    for block in form.blocks:
        table.add_row(*cells(block))
    return table


def form_text(form: "ResidualForm") -> str:
    """The table in plain characters."""
    rows = [_COLUMNS, *(cells(block) for block in form.blocks)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([headline(form), *lines, footline(form)])


def form_html(form: "ResidualForm") -> str:
    """The table as HTML; names come from the model and are escaped."""
    head = "".join(f'<th scope="col">{column}</th>' for column in _COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(block)) + "</tr>" for block in form.blocks
    )
    return (
        f"<table><caption>{html.escape(headline(form))}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table><p>{html.escape(footline(form))}</p>"
    )


def headline(form: "ResidualForm") -> str:
    """How many blocks there are, and of what kind."""
    kinds = [block.skip for block in form.blocks]
    parts = [f"{kinds.count(kind)} {kind}" for kind in ("identity", "projection", "none") if kind in kinds]
    return f"{len(kinds)} blocks (skips: {', '.join(parts)})"


def footline(form: "ResidualForm") -> str:
    """How exact the form is, and what the check could not see."""
    silent = f"; silent: {', '.join(block.name for block in form.silent)}" if form.silent else ""
    exact = "not run" if form.error != form.error else f"form(x) equals model(x) to {form.error:.1e}"
    return f"{exact}{silent}"


def cells(block: "Block") -> tuple[str, ...]:
    """One block as text, in the order of the columns."""
    return (
        str(block.index),
        block.name,
        block.skip,
        ", ".join(block.branches) if len(block.branches) > 1 else str(len(block.branches)),
        ", ".join(block.after) or "-",
        str(len(block.nested)) if block.nested else "-",
        "×".join(map(str, block.shape)),
        f"{block.parameters:,}",
        block.where,
    )

"""How a form is shown: text, a table for the terminal, HTML for a notebook."""

from typing import Any, get_args

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from unbraid.discover import Block, drawn
from unbraid.discover.kinds import Skip
from unbraid.form._core import Form

_COLUMNS = ("", "block", "skip", "branches", "after", "nested", "shape", "parameters", "where")


def _columns(form: Form) -> tuple[str, ...]:
    """The columns; with several trunks the first says which."""
    return ("trunk", *_COLUMNS) if len(form.trunks) > 1 else _COLUMNS


def form_table(form: Form) -> Table:
    """The blocks, one per row; the measured error below."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=headline(form),
        title_justify="left",
        caption=escape("\n".join([*form.notes, footline(form)])),
    )
    table.caption_justify = "left"
    for column in _columns(form):
        table.add_column(column, justify="right" if column in {"", "trunk", "nested", "parameters"} else "left")
    for block in _running(form):
        table.add_row(*_cells(form, block))
    return table


def form_text(form: Form) -> str:
    """The table in plain characters."""
    rows = [_columns(form), *(_cells(form, block) for block in _running(form))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([headline(form), *lines, *form.notes, footline(form)])


def form_tree(form: Form) -> Tree:
    """Source, blocks and stream from top to bottom; a block's branches, and the blocks inside them, to the right."""
    tree = Tree(escape(f"{headline(form)}; {footline(form)}"))
    for source in form.sources:
        tree.add(escape(f"o {source} {_sizes(form.streams[source].shape)}"))
    for block in _running(form):
        _grow(tree, block)
    tree.add(escape(f"= {form.end} {_sizes(form.streams[form.end].shape)}"))
    return tree


def _grow(tree: Tree, block: Block) -> None:
    skip = {"identity": "h", "none": "", "gate": "g ⊙ h", "mix": "R h"}.get(block.skip, "S h")
    between, around = (" + ", "{}") if block.join == "sum" else (", ", "[{}]")
    functions = [f"f{j}(h)" if len(block.branches) > 1 else "f(h)" for j in range(len(block.branches))]
    after = f", then {' '.join(block.after)}" if block.after else ""
    total = around.format(between.join([skip, *functions] if skip else functions))
    grown = tree.add(escape(f"{block.index} h <- {total}{after}   {block.name}   {_sizes(block.shape)}"))
    for j, name in enumerate(block.branches):
        inner = [nested for nested in block.nested if nested.parent == (block.index, j)]
        if len(block.branches) > 1 or inner:
            branch = grown.add(escape(f"f{j}: {name}"))
            for nested in inner:
                _grow(branch, nested)


def _running(form: Form) -> list[Block]:
    """The blocks, trunk by trunk, in the order in which they run."""
    return sorted((form.blocks[index] for index in form.order), key=lambda block: block.trunk)


def _cells(form: Form, block: Block) -> tuple[str, ...]:
    return (str(block.trunk), *cells(block)) if len(form.trunks) > 1 else cells(block)


def _sizes(shape: tuple[int | str, ...]) -> str:
    return "×".join(map(str, shape))


def form_rows(form: Form) -> list[dict[str, Any]]:
    """One dict per block, in the order in which they run; lists as text."""
    rows = [block_row(block) for block in _running(form)]
    for row in rows:
        for name, between in {"branches": ", ", "after": ", ", "shape": "×"}.items():
            row[name] = between.join(map(str, row[name]))
    return rows


def block_row(block: Block) -> dict[str, Any]:
    """A block as plain values."""
    return {
        "index": block.index,
        "name": block.name,
        "skip": block.skip,
        "join": block.join,
        "branches": list(block.branches),
        "after": list(block.after),
        "nested": len(block.nested),
        "trunk": block.trunk,
        "shape": list(block.shape),
        "parameters": block.parameters,
        "where": block.where,
    }


def headline(form: Form) -> str:
    """How many blocks there are, and of what kind."""
    kinds = [block.skip for block in form.blocks]
    parts = [f"{kinds.count(kind)} {kind}" for kind in get_args(Skip) if kind in kinds]
    count = "1 block" if len(kinds) == 1 else f"{len(kinds)} blocks"
    trunks = f" in {len(form.trunks)} trunks" if len(form.trunks) > 1 else ""
    return f"{count}{trunks} (skips: {', '.join(parts)})"


def footline(form: Form) -> str:
    """How exact the form is, what the check could not see, and what differs from run to run."""
    silent = f"; silent: {', '.join(block.name for block in form.silent)}" if form.silent else ""
    exact = "not run" if form.error != form.error else f"form(x) equals model(x) to {form.error:.1e}"
    random = f"; draws random numbers: {', '.join(operators)}" if (operators := drawn(form.graph)) else ""
    return f"{exact}{silent}{random}"


def cells(block: Block) -> tuple[str, ...]:
    """One block as text, in the order of the columns."""
    return (
        str(block.index),
        block.name,
        block.skip if block.join == "sum" else f"{block.skip}, beside",
        ", ".join(block.branches) if len(block.branches) > 1 else str(len(block.branches)),
        ", ".join(block.after) or "-",
        str(len(block.nested)) if block.nested else "-",
        _sizes(block.shape),
        f"{block.parameters:,}",
        block.where,
    )

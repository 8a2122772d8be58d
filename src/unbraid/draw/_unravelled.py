"""Figure 11.4b: the same network unravelled, all its 2^K paths side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unbraid.draw._kinds import Kinds, Shown, draw_join, draw_skip, kinds_of
from unbraid.draw._network import hidden
from unbraid.draw._shapes import arrow, box, label, wire
from unbraid.draw._style import INK, blank, colour, style

__all__ = ["unravelled"]

_TOP, _BOTTOM = 0.85, 0.55
_SOURCE, _COLUMN, _LABELS = 0.95, 1.05, 1.75


@dataclass(frozen=True)
class _Grid:
    """Where things lie: a row for each path, from the top, and a column for each block."""

    kinds: tuple[Kinds, ...]

    @property
    def k(self) -> int:
        return len(self.kinds)

    @property
    def row_height(self) -> float:
        return {1: 0.6, 2: 0.52, 3: 0.46, 4: 0.4, 5: 0.32, 6: 0.27}[self.k]

    @property
    def height(self) -> float:
        return _TOP + _BOTTOM + (2**self.k - 1) * self.row_height

    @property
    def total(self) -> float:
        """Where the terms are added."""
        return self.column(self.k) + _LABELS

    def row(self, row: float) -> float:
        return self.height - _TOP - row * self.row_height

    def column(self, block: int) -> float:
        return _SOURCE + block * _COLUMN - 0.2


def unravelled(blocks: int | Sequence[Shown] = 4) -> Figure:
    """Equation 11.5: y = x + f_1[x] + f_2[x + f_1[x]] + ..., the input and K smaller networks.

    After figure 11.4b of Prince (2023). Each row that leaves x is one of the 2^K paths; a path meets the boxes
    whose blocks it goes through. Every smaller network has its own colour. The dashed path enters the first and
    the last block and skips those between. What a skip does to a term that passes it stands on the term's wire.

    Args:
        blocks: the number of blocks K, 1 to 6; or those of a form, `form.blocks`, of which skips and joins are shown.

    Returns:
        A matplotlib figure, taller with every block: it has 2^K rows.

    Raises:
        ValueError: there are not 1 to 6 blocks, they lie on several trunks, or one has no skip.
    """
    kinds = kinds_of(blocks)
    if any(kind.skip == "none" for kind in kinds):
        raise ValueError("unravelled: a block without a skip has one way alone; draw.plain shows a plain network.")
    k, grid = len(kinds), _Grid(tuple(kinds))
    with style():
        figure = blank(max(grid.total + 0.85, 6.6), grid.height)
        axes = figure.axes[0]
        networks = "1 smaller network" if k == 1 else f"{k} smaller networks"
        beside = any(kind.join == "concatenation" for kind in kinds)
        heading = f"The output is {'made of' if beside else 'a sum over'} {2**k} paths: the input and {networks}"
        label(axes, (0.25, grid.height - 0.3), heading, size=11.5, ha="left").set_fontweight("bold")
        _draw_source(axes, grid)
        for term in range(k + 1):
            _draw_group(axes, grid, term)
        _draw_total(axes, grid)
        name = "$f_1$ alone" if k == 1 else f"$f_1$ and $f_{k}$ alone"
        label(axes, (0.25, 0.22), f"dashed: the path through {name}", size=9.0, ha="left", muted=True)
    return figure


def _first_row(term: int) -> int:
    """Terms 0, 1, 2, 3 hold 1, 1, 2, 4 paths: those of term t begin where 2^(t-1) rows are used up."""
    return 0 if term == 0 else 2 ** (term - 1)


def _paths(term: int) -> int:
    return 1 if term == 0 else 2 ** (term - 1)


def _is_dashed(grid: _Grid, entered: tuple[int, ...]) -> bool:
    """Whether the wire after the blocks `entered` (the outermost first) lies on the dashed path."""
    whole = (1,) if grid.k == 1 else (grid.k, 1)
    return len(entered) > 0 and entered == whole[: len(entered)]


def _draw_group(axes: Axes, grid: _Grid, term: int) -> None:
    """A term of Equation 11.5, from the input to the final sum, with its name and its number of paths."""
    y = _draw_term(axes, grid, term, _first_row(term), (), INK if term == 0 else colour(term - 1))
    color = INK if term == 0 else colour(term - 1)
    start = _SOURCE if term == 0 else grid.column(term)
    dashed = _is_dashed(grid, (term,))
    wire(axes, [(start, y), (grid.total, y)], color=color, dashed=dashed)
    _draw_skips(axes, grid, range(term + 1, grid.k + 1), y, color)
    name = "$x$" if term == 0 else rf"$f_{term}[{hidden(term)}]$"
    count = "1 path" if _paths(term) == 1 else f"{_paths(term)} paths"
    label(axes, (grid.total - 0.22, y + 0.05), f"{name}, {count}", size=9.0, ha="right", va="bottom")


def _draw_term(axes: Axes, grid: _Grid, term: int, first: int, outer: tuple[int, ...], color: str) -> float:
    """Draw the sub-network of a term over its rows, up to its box; return the height at which it leaves."""
    if term == 0:
        return grid.row(float(first))
    entered = (*outer, term)
    x = grid.column(term)
    y = grid.row(first + (_paths(term) - 1) / 2)
    if term == 1:
        wire(axes, [(_SOURCE, y), (x, y)], color=color, dashed=_is_dashed(grid, entered))
    else:
        _draw_sum(axes, grid, term, first, entered, color)
    size = min(0.34, grid.row_height * 0.84)
    box(axes, (x, y), rf"$f_{term}$", color=color, width=0.5, height=size, size=min(12.5, size * 38))
    return y


def _draw_sum(axes: Axes, grid: _Grid, term: int, first: int, entered: tuple[int, ...], color: str) -> None:
    """The terms that a box reads, 0 to term - 1, and their sum before it."""
    x = grid.column(term)
    y = grid.row(first + (_paths(term) - 1) / 2)
    joint = x - 0.46
    for inner in range(term):
        row = first + _first_row(inner)
        height = _draw_term(axes, grid, inner, row, entered, color)
        start = _SOURCE if inner == 0 else grid.column(inner)
        # The dashed path never reads x at a sum: it comes through block 1, or the sum is not on it.
        dashed = inner > 0 and _is_dashed(grid, (*entered, inner))
        wire(axes, [(start, height), (joint, height), (joint, y)], color=color, dashed=dashed)
        _draw_skips(axes, grid, range(inner + 1, term), height, color)
    wire(axes, [(joint, y), (x, y)], color=color, dashed=_is_dashed(grid, entered))
    draw_join(axes, (joint, y), grid.kinds[term - 2], radius=min(0.1, grid.row_height * 0.3), color=color)


def _draw_skips(axes: Axes, grid: _Grid, passed: range, y: float, color: str) -> None:
    """What the skips of some blocks do to a term on its way past them."""
    for block in passed:
        draw_skip(axes, (grid.column(block), y), grid.kinds[block - 1], block, size=grid.row_height * 0.5, color=color)


def _draw_source(axes: Axes, grid: _Grid) -> None:
    """The one input, which all paths leave."""
    top, bottom = grid.row(0.0), grid.row(2.0**grid.k - 1)
    middle = (top + bottom) / 2
    wire(axes, [(_SOURCE, top), (_SOURCE, bottom)])
    wire(axes, [(_SOURCE - 0.3, middle), (_SOURCE, middle)])
    label(axes, (_SOURCE - 0.48, middle), "$x$", size=15.0)


def _draw_total(axes: Axes, grid: _Grid) -> None:
    """The sum of all terms: the output."""
    top = grid.row(0.0)
    bottom = grid.row(_first_row(grid.k) + (_paths(grid.k) - 1) / 2)
    middle = (top + bottom) / 2
    wire(axes, [(grid.total, top), (grid.total, bottom)])
    arrow(axes, (grid.total, middle), (grid.total + 0.45, middle))
    draw_join(axes, (grid.total, middle), grid.kinds[-1])
    label(axes, (grid.total + 0.6, middle), "$y$", size=15.0)

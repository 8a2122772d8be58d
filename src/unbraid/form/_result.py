import html
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from importlib import util
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rich.table import Table
from torch import Tensor

from unbraid.errors import UnbraidError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


@runtime_checkable
class ScalarWriter(Protocol):
    """What takes single numbers: torch.utils.tensorboard.SummaryWriter, for one."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Write one number."""
        ...


class Brief:
    """A data class that shows itself in a line or two: sizes of tensors and numbers of entries, not what they hold.

    The data class is declared with repr=False.
    """

    def __repr__(self) -> str:
        shown = [f"{f.name}={_brief(getattr(self, f.name))}" for f in fields(self) if f.repr]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(shown)})"


def _brief(value: Any) -> str:
    if isinstance(value, Tensor):
        return (
            f"{value.item():.4g}"
            if value.numel() == 1 and not value.ndim and not value.is_complex()
            else f"tensor{[*value.shape]}"
        )
    if isinstance(value, bool | int | None):
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return repr(value if len(value) <= _TEXT else f"{value[:_TEXT]}...")
    if isinstance(value, list | tuple | Mapping):
        short = not isinstance(value, Mapping) and len(value) <= _FEW and all(isinstance(v, int | float) for v in value)
        return f"({', '.join(map(_brief, value))})" if short else f"{len(value)} entries"
    return type(value).__name__


_TEXT, _FEW = 40, 6  # characters of a text, and numbers, that are written out


class Result(Brief, ABC):
    """What every result of an analysis offers.

    A table for the terminal and for a notebook, plain values, rows for pandas, a figure, and its single numbers for
    TensorBoard.
    """

    @abstractmethod
    def table(self) -> Table:
        """The result as a table for the terminal."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The result as plain values."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """One dict of plain values for each block, length, path, or what else is counted, with one set of keys."""

    @abstractmethod
    def plot(self, *, ax: "Axes | None" = None) -> "Figure":
        """The result as a matplotlib figure; drawn into `ax` where one is given, and then the figure that holds it."""

    def scalars(self) -> dict[str, float]:
        """The result's single numbers by name, such as its error; those that are not finite are left out."""
        return finite(self.to_dict())

    def to_pandas(self) -> "DataFrame":
        """The rows as a data frame.

        Raises:
            UnbraidError: pandas is not installed.
        """
        if util.find_spec("pandas") is None:
            raise UnbraidError('to_pandas needs the package pandas: pip install "unbraid[pandas]"')
        from pandas import DataFrame

        return DataFrame(self.rows())

    def log(self, writer: ScalarWriter, step: int, *, under: str = "unbraid") -> None:
        """Give the single numbers to a writer, TensorBoard's SummaryWriter, say.

            unbraid.signal(form, batches).log(SummaryWriter("runs/a"), step)

        Args:
            writer: what takes them.
            step: the step of training at which they were taken.
            under: the group of tags in which they appear.
        """
        for name, value in self.scalars().items():
            writer.add_scalar(f"{under}/{name}", value, step)

    def _repr_html_(self) -> str:
        return as_html(self.table())


def finite(values: dict[str, Any]) -> dict[str, float]:
    """Those entries that are finite numbers, spaces for underscores in their names."""
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    kept = {name: float(value) for name, value in numbers.items() if not isinstance(value, bool)}
    return {name.replace("_", " "): value for name, value in kept.items() if math.isfinite(value)}


def as_html(table: Table) -> str:
    """A table of the terminal for a notebook; names come from the model and are escaped."""
    sides = [' style="text-align:right"' if c.justify == "right" else ' style="text-align:left"' for c in table.columns]
    head = "".join(
        f'<th scope="col"{side}>{_text(column.header)}</th>' for column, side in zip(table.columns, sides, strict=True)
    )
    rows = zip(*(column.cells for column in table.columns), strict=True)
    body = "".join(
        f"<tr>{''.join(f'<td{side}>{_text(cell)}</td>' for cell, side in zip(row, sides, strict=True))}</tr>"
        for row in rows
    )
    said = [text for text in (table.title, table.caption) if text]
    caption = f"<caption>{'; '.join(map(_text, said))}</caption>" if said else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(cell: object) -> str:
    return html.escape(str(cell))

import html
import math
from abc import ABC, abstractmethod
from importlib import util
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rich.table import Table

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


class Result(ABC):
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

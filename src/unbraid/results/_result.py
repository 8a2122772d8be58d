"""What all results of analyses have in common.

A result is a frozen data class. It declares `columns`, how its rows are shown in a table, and `entries`, which of its
attributes are its plain values, and says by `rows` what there is to count. The table, the dict, the data frame, what a
notebook shows and what TensorBoard gets follow from these here.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib import util
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from rich import box
from rich.table import Table
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid.errors import UnbraidError
from unbraid.results.rows import Column, Row, as_html, fill, plain

if TYPE_CHECKING:
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

    Attributes:
        columns: of the table: the heading, and how a row is shown under it, in the language of `str.format`.
        entries: the attributes that are its plain values; all fields where none are named.
    """

    columns: ClassVar[tuple[Column, ...]] = ()
    entries: ClassVar[tuple[str, ...]] = ()

    @property
    def caption(self) -> str:
        """What stands below the table: how the numbers were made, and how exact they are."""
        return ""

    @abstractmethod
    def rows(self) -> list[Row]:
        """One dict of plain values for each block, length, path, or what else is counted, with one set of keys."""

    def _table_rows(self) -> Iterable[Row]:
        """The rows of the table, where they are others than `rows`, stand in another order, or have more entries."""
        return self.rows()

    def table(self) -> Table:
        """The result as a table for the terminal."""
        table = Table(box=box.SIMPLE_HEAD, caption=self.caption or None)
        table.caption_justify = "left"
        return fill(table, self.columns, self._table_rows())

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        names = self.entries or [field.name for field in fields(self)]  # type: ignore[arg-type]
        return {name: plain(getattr(self, name)) for name in names}

    @abstractmethod
    def plot(self, *, ax: Axes | None = None) -> Figure:
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

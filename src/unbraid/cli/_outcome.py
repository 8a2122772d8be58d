"""What came of a sweep: a row for each setting, over its seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from unbraid.cli._grid import Grid, Setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Outcome", "Row"]

_MOST_CURVES = 6  # that draw.depth can tell apart


@dataclass(frozen=True)
class Row:
    """The runs of one setting.

    Attributes:
        setting: what was asked for.
        seeds: of the runs.
        results: what came of each, as the store keeps it.
    """

    setting: Setting
    seeds: tuple[int, ...]
    results: tuple[Mapping[str, Any], ...]

    @property
    def errors(self) -> tuple[float, ...]:
        """The test error of each run in %; nan where it diverged."""
        in_percent = (result["test_error"] for result in self.results)
        return tuple(math.nan if error is None else float(error) for error in in_percent)

    @property
    def finite(self) -> tuple[float, ...]:
        """The same without the runs that diverged."""
        return tuple(error for error in self.errors if math.isfinite(error))

    @property
    def median(self) -> float:
        """Of the test errors in %, over the runs that did not diverge; nan where all did."""
        return statistics.median(self.finite) if self.finite else math.nan

    def name(self, keys: Sequence[str]) -> str:
        """Its values of these keys; the kind says itself what it is."""
        values = {key: _said(getattr(self.setting, key)) for key in keys}
        return ", ".join(
            value if key == "kind" else f"{key.replace('_', ' ')} {value}" for key, value in values.items()
        )

    def to_dict(self) -> dict[str, object]:
        """The setting, the median and every run, ready for JSON."""
        runs = [{"seed": seed, **result} for seed, result in zip(self.seeds, self.results, strict=True)]
        return {"setting": asdict(self.setting), "median": self.median, "runs": runs}


@dataclass(frozen=True)
class Outcome:
    """A finished sweep.

    Attributes:
        grid: what was asked for.
        rows: one for each setting.
    """

    grid: Grid
    rows: tuple[Row, ...]

    def table(self) -> Table:
        """One row for each setting: what varies, then median and range of the test error over seeds."""
        keys = self.grid.varied()
        table = Table(title=Text(f"{self.grid.data}: test error in %, over seeds"))
        for key in (*keys, "runs", "median", "least", "most", "diverged"):
            table.add_column(key.replace("_", " "), justify="right")
        for row in self.rows:
            values = [_said(getattr(row.setting, key)) for key in keys]
            numbers = (row.median, min(row.finite, default=math.nan), max(row.finite, default=math.nan))
            errors = ["—" if math.isnan(number) else f"{number:.1f}" for number in numbers]
            diverged = len(row.errors) - len(row.finite)
            table.add_row(*values, f"{len(row.errors)}", *errors, f"{diverged}" if diverged else "")
        return table

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        rows = [row.to_dict() for row in self.rows]
        return {"data": self.grid.data, "varied": list(self.grid.varied()), "rows": rows}

    def plot(self) -> "Figure":
        """Error against depth where depths differ and curves are few; else a row for each setting."""
        from unbraid import draw

        keys = self.grid.varied()
        rest = [key for key in keys if key != "depth"]
        curves: dict[str, list[Row]] = {}
        for row in sorted(self.rows, key=lambda row: row.setting.depth):
            curves.setdefault(row.name(rest), []).append(row)
        if len({row.setting.depth for row in self.rows}) > 1 and len(curves) <= _MOST_CURVES:
            return draw.depth([_curve(name, rows) for name, rows in curves.items()])
        return draw.sweep([row.name(keys) for row in self.rows], [row.errors for row in self.rows])


def _curve(name: str, rows: Sequence[Row]) -> Any:
    from unbraid import draw

    depths = tuple(row.setting.depth for row in rows)
    return draw.DepthCurve(name or "test error", depths, tuple(row.errors for row in rows))


def _said(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

"""What a lesion study found: a metric without each of some sets of blocks, as rows, table and figure."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

from rich.table import Table

from unbraid._figures import Axes, Figure
from unbraid.graph import SKIP, Removal
from unbraid.lesions._lesion_sets import LesionSet
from unbraid.results import Result
from unbraid.results.rows import Row, as_rows

SAID = {
    "zero": "output left out",
    "mean": "output replaced by its mean over the data",
    "resample": "output replaced by another example's",
    "identity": "the identity in the place of each block, its skip as well",
    "corrupt": "output replaced by that at the corrupt batch",
}


@dataclass(frozen=True, repr=False)
class LesionStudy(Result):
    """A metric of a model without each of some sets of blocks, beside the whole model's (Veit et al. 2016).

    Attributes:
        whole: the metric of the whole model, averaged over all examples.
        sets: what was deleted: blocks by index, branches as (block, branch), or skips as (block, −1).
        names: the same by name.
        metrics: the metric without each set.
        replace: what took the place of a branch's output: "zero", "mean", "resample" or "corrupt"; "identity" that of a
            block.
        identity: the plain layers, which have no skip, in whose place the identity was put.
        examples: how many examples there were.
        stacked: whether several lesions ran together as one larger batch.
        positions: where alone the output was replaced, in words; empty for everywhere.
    """

    whole: float
    sets: tuple[LesionSet, ...]
    names: tuple[str, ...]
    metrics: tuple[float, ...]
    replace: str
    identity: tuple[int, ...]
    examples: int
    stacked: bool
    positions: str = ""

    columns = (("without", "{without}"), ("", "{name}"), ("metric", "{metric:.4g}"), ("change", "{change:+.4g}"))

    @cached_property
    def delta(self) -> tuple[float, ...]:
        """By how much each lesion changes the metric."""
        return tuple(metric - self.whole for metric in self.metrics)

    @cached_property
    def ranked(self) -> tuple[int, ...]:
        """The numbers of the sets, those that change the metric most first."""
        return tuple(sorted(range(len(self.sets)), key=lambda number: -abs(self.delta[number])))

    def table(self) -> Table:
        """One row per lesion, those that change the metric most first."""
        table = super().table()
        table.columns[1].overflow = "fold"
        return table

    def _table_rows(self) -> list[Row]:
        rows = self.rows()
        return [rows[number] for number in self.ranked]

    @property
    def caption(self) -> str:
        """How the numbers were made."""
        identity = f"; the identity in the place of {len(self.identity)} plain layers" if self.identity else ""
        said = f"{SAID[self.replace]}{', ' if self.positions else ''}{self.positions}"
        return f"whole model: {self.whole:.4g}; {said}{identity}; {self.examples:,} examples"

    def to_dict(self) -> dict[str, Any]:
        """The metric of each lesion as plain values."""
        columns = {"without": map(list, self.sets), "name": self.names, "metric": self.metrics, "change": self.delta}
        return {
            "whole": self.whole,
            "lesions": as_rows(columns),
            "replace": self.replace,
            "positions": self.positions,
            "identity": list(self.identity),
            "examples": self.examples,
            "stacked": self.stacked,
        }

    def rows(self) -> list[Row]:
        """One row per lesion, in the order asked for."""
        return as_rows({"without": self._labels, "name": self.names, "metric": self.metrics, "change": self.delta})

    @property
    def _labels(self) -> list[str]:
        return [", ".join(map(_short, which)) for which in self.sets]

    def plot(self, quantity: str = "metric", *, ax: Axes | None = None) -> Figure:
        """The metric without each block, pairs as a map; `quantity` says what it is, with its unit."""
        from unbraid import draw

        pairs = [which for which in self.sets if _is_pair(which)]
        if len(self.sets) == len(pairs) > 1:
            return draw.lesion_pairs(self.whole, pairs, self.metrics, quantity, ax=ax)
        return draw.lesions(self.whole, self._labels, self.names, self.metrics, quantity, ax=ax)


def _is_pair(which: LesionSet) -> TypeGuard[tuple[int, int]]:
    """Whether two whole blocks were deleted together."""
    return len(which) == 2 and all(isinstance(part, int) for part in which)


def _short(removal: Removal) -> str:
    if isinstance(removal, int):
        return str(removal)
    return f"({removal[0]}, {'skip' if removal[1] == SKIP else removal[1]})"

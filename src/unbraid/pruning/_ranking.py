"""What each block, or each group of blocks, is worth, and which are worth least."""

import math
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, TypeAlias

from jaxtyping import Float64
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid.graph import Removal
from unbraid.results import Result
from unbraid.results.rows import Row, as_rows, numbered, plain

By: TypeAlias = Literal["influence", "lesion", "gradient"]

_LABELS = {
    "influence": "influence, 1 − E cos(before, after)",
    "lesion": "metric without it − metric of the whole",
    "gradient": "|E Σ ⟨∂metric/∂f, f⟩|",
}


@dataclass(frozen=True, eq=False, repr=False)
class Ranking(Result):
    """What each block, or each group of blocks, is worth.

    Attributes:
        by: "influence", "lesion" or "gradient".
        groups: what each score belongs to, as `form.without` and `prune` take it: single blocks, unless groups were
            given.
        names: what to call them.
        scores: one per group; larger is more important. nan where there is none, as in a plain layer that changes the
            size.
        parameters: how many numbers the blocks of each group learn.
        whole: the metric of the whole model; nan where none was needed.
        examples: over how many examples the scores are means.
    """

    by: By
    groups: tuple[tuple[Removal, ...], ...]
    names: tuple[str, ...]
    scores: Float64[Tensor, " groups"]
    parameters: tuple[int, ...]
    whole: float
    examples: int

    columns = (
        ("", "{number:d}"),
        ("what", "{name}"),
        ("score", "{score:.4g}"),
        ("parameters", "{parameters:,}"),
    )

    @property
    def caption(self) -> str:
        """What a score is, and over how many examples it is a mean."""
        whole = "" if math.isnan(self.whole) else f"; the whole model's metric is {self.whole:.4g}"
        return f"{_LABELS[self.by]}; {self.examples:,} examples{whole}"

    @property
    def order(self) -> tuple[int, ...]:
        """The numbers of the groups, least important first, those without a score last; block indices by default."""
        scores = self.scores.tolist()
        return tuple(sorted(range(len(scores)), key=lambda k: (math.isnan(scores[k]), scores[k])))

    def least(self, count: int) -> tuple[Removal, ...]:
        """The branches of the `count` least important groups, for `form.without` and `prune`.

        Raises:
            ValueError: there are not so many groups with a score.
        """
        known = [k for k in self.order if not math.isnan(float(self.scores[k]))]
        if not 0 <= count <= len(known):
            raise ValueError(f"least: {len(known)} of {len(self.groups)} have a score; {count} were asked for.")
        return tuple(chain.from_iterable(self.groups[k] for k in known[:count]))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values; None where there is no number."""
        return {
            "by": self.by,
            "groups": plain(self.groups),
            "names": list(self.names),
            "scores": [None if math.isnan(score) else score for score in self.scores.tolist()],
            "order": list(self.order),
            "parameters": list(self.parameters),
            "whole": None if math.isnan(self.whole) else self.whole,
            "examples": self.examples,
        }

    def rows(self) -> list[Row]:
        """One row per group, in order of execution."""
        return as_rows({"name": self.names, "score": self.scores, "parameters": self.parameters})

    def _table_rows(self) -> list[Row]:
        rows = numbered(self.rows())
        return [rows[number] for number in self.order]

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The scores in order of execution."""
        from unbraid.draw import ranking

        return ranking(self.names, self.scores.tolist(), _LABELS[self.by], ax=ax)

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from jaxtyping import Float64
from rich import box
from rich.table import Table
from torch import Tensor

from unbraid.form import Result
from unbraid.prune._measure import Removal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
        scores: one a group; larger is more important. nan where there is none, as in a plain layer that changes the
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
        return tuple(removal for k in known[:count] for removal in self.groups[k])

    def table(self) -> Table:
        """One row a group, least important first."""
        table = Table(box=box.SIMPLE_HEAD, caption=_caption(self))
        table.caption_justify = "left"
        for column in ("", "what", "score", "parameters"):
            table.add_column(column, justify="left" if column == "what" else "right")
        for k in self.order:
            table.add_row(str(k), self.names[k], f"{float(self.scores[k]):.4g}", f"{self.parameters[k]:,}")
        return table

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values; None where there is no number."""
        return {
            "by": self.by,
            "groups": [[list(r) if isinstance(r, tuple) else r for r in group] for group in self.groups],
            "names": list(self.names),
            "scores": [None if math.isnan(score) else score for score in self.scores.tolist()],
            "order": list(self.order),
            "parameters": list(self.parameters),
            "whole": None if math.isnan(self.whole) else self.whole,
            "examples": self.examples,
        }

    def rows(self) -> list[dict[str, Any]]:
        """One a group, in order of execution."""
        columns = zip(self.names, self.scores.tolist(), self.parameters, strict=True)
        return [{"name": name, "score": score, "parameters": count} for name, score, count in columns]

    def plot(self, *, ax: "Axes | None" = None) -> "Figure":
        """The scores in order of execution."""
        from unbraid.draw import ranking  # matplotlib is imported where a figure is wanted

        return ranking(self.names, self.scores.tolist(), _LABELS[self.by], ax=ax)


def _caption(ranking: Ranking) -> str:
    whole = "" if math.isnan(ranking.whole) else f"; the whole model's metric is {ranking.whole:.4g}"
    return f"{_LABELS[ranking.by]}; {ranking.examples:,} examples{whole}"

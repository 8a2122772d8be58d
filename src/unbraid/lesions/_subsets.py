"""The metric of subnetworks: how the ensemble of a model's paths degrades (Veit et al. 2016, section 4.2)."""

from dataclasses import dataclass
from itertools import compress, product
from pathlib import Path
from typing import Any

import torch

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid._renamed import keep_and_stateful_before
from unbraid.discover import refuse_stateful
from unbraid.form import ResidualForm
from unbraid.results import Result
from unbraid.results.rows import Row, as_rows
from unbraid.sweep import Batches, Metric, Resume, lesioned, sweep

_MOST = 16


@dataclass(frozen=True, repr=False)
class SubsetStudy(Result):
    """A metric of subnetworks of a model: how the ensemble of its paths degrades (Veit et al. 2016, section 4.2).

    Attributes:
        whole: the metric of the whole model, averaged over all examples.
        kept: the blocks that each subnetwork keeps, by index.
        metrics: its metric.
        blocks: how many blocks the model has.
        examples: how many examples there were.
        stacked: whether several subnetworks ran together as one larger batch.
    """

    whole: float
    kept: tuple[tuple[int, ...], ...]
    metrics: tuple[float, ...]
    blocks: int
    examples: int
    stacked: bool

    columns = (
        ("blocks kept", "{blocks:d}"),
        ("subnetworks", "{subnetworks:,}"),
        ("mean metric", "{mean:.4g}"),
        ("least", "{least:.4g}"),
        ("most", "{most:.4g}"),
    )

    @property
    def means(self) -> dict[int, float]:
        """The mean of the metric by the number of blocks that are kept."""
        return {count: sum(metrics) / len(metrics) for count, metrics in self._by_number().items()}

    @property
    def caption(self) -> str:
        """How the numbers were made."""
        which = "all" if len(self.kept) == 2**self.blocks else "random"
        return f"whole model: {self.whole:.4g}; {len(self.kept):,} subnetworks ({which}); {self.examples:,} examples"

    def to_dict(self) -> dict[str, Any]:
        """Every subnetwork with its metric, and the means, as plain values."""
        return {
            "whole": self.whole,
            "subnetworks": as_rows({"kept": map(list, self.kept), "metric": self.metrics}),
            "means": {str(count): mean for count, mean in self.means.items()},
            "examples": self.examples,
            "stacked": self.stacked,
        }

    def rows(self) -> list[Row]:
        """One row per subnetwork."""
        names = [", ".join(map(str, kept)) for kept in self.kept]
        return as_rows({"kept": names, "blocks": map(len, self.kept), "metric": self.metrics})

    def plot(self, quantity: str = "metric", *, ax: Axes | None = None) -> Figure:
        """Mean, median and range by the number of blocks; `quantity` says what the metric is, with its unit."""
        from unbraid import draw

        return draw.subsets([len(kept) for kept in self.kept], self.metrics, self.whole, quantity, ax=ax)

    def _by_number(self) -> dict[int, list[float]]:
        metrics: dict[int, list[float]] = {}
        for kept, metric in zip(self.kept, self.metrics, strict=True):
            metrics.setdefault(len(kept), []).append(metric)
        return dict(sorted(metrics.items()))

    def _table_rows(self) -> list[Row]:
        """One row for each number of blocks."""
        by_number = self._by_number()
        return as_rows(
            {
                "blocks": by_number,
                "subnetworks": map(len, by_number.values()),
                "mean": self.means.values(),
                "least": map(min, by_number.values()),
                "most": map(max, by_number.values()),
            }
        )


@keep_and_stateful_before
@outside_modes
def subsets(
    form: ResidualForm,
    batches: Batches,
    metric: Metric,
    *,
    count: int | None = None,
    generator: torch.Generator | None = None,
    max_batch: int | None = None,
    allow_random: bool = False,
    resume: Path | str | None = None,
) -> SubsetStudy:
    """The metric of a model that keeps some of its blocks: all 2^K subnetworks, or random ones.

    Args:
        form: a traced model, or a chain.
        batches: pairs of inputs and labels.
        metric: (what the model returns, labels) -> a scalar tensor; averaged over batches by their size.
        count: how many random subnetworks, spread evenly over the numbers of blocks 0 to K, the blocks drawn at random;
            None takes all 2^K, for K ≤ 16.
        generator: draws them; with the seed 0 where none is given.
        max_batch: how many examples run at once at most, if more than a batch holds; None lets the memory decide.
        allow_random: accept random operators and norms in training; then nothing is stacked.
        resume: an SQLite file in which finished batches are kept, so that the same call goes on from there; see
            `lesion`.

    Raises:
        ValueError: there are more than 16 blocks and no count; or a random operator, or a norm in training, that was
            not asked for.
        ShapeError: a plain layer changes the size, so that no identity can take its place.
        DataError: there is no batch.
    """
    if not allow_random:
        refuse_stateful(form.graph, "subsets")
    blocks = [block.index for block in form.blocks]
    kept = _all(blocks) if count is None else _drawn(blocks, count, generator)
    deleted = [tuple(sorted(set(blocks).difference(some))) for some in kept]
    variants = lesioned(form, [(), *deleted])
    swept = sweep(
        form,
        variants,
        batches,
        metric,
        max_batch=max_batch,
        stack=not allow_random,
        text="subnetworks",
        resume=Resume(resume, "subnetworks"),
    )
    return SubsetStudy(swept.means[0], tuple(kept), swept.means[1:], len(blocks), swept.examples, swept.stacked)


def _all(blocks: list[int]) -> list[tuple[int, ...]]:
    """All subsets, those side by side that agree on the first blocks."""
    if len(blocks) > _MOST:
        raise ValueError(
            f"subsets: {len(blocks)} blocks have 2^{len(blocks)} subnetworks, and all are taken for at most {_MOST} "
            "blocks. Give a count of random ones."
        )
    choices = product((True, False), repeat=len(blocks))
    return [tuple(compress(blocks, choice)) for choice in choices]


def _drawn(blocks: list[int], count: int, generator: torch.Generator | None) -> list[tuple[int, ...]]:
    if count < 1:
        raise ValueError(f"subsets: count is at least 1; got {count}.")
    drawn = generator if generator is not None else torch.Generator().manual_seed(0)
    chosen = []
    for number in range(count):
        order = torch.randperm(len(blocks), generator=drawn, device=drawn.device).tolist()
        chosen.append(tuple(sorted(blocks[place] for place in order[: number % (len(blocks) + 1)])))
    return sorted(chosen)  # side by side what shares its first blocks

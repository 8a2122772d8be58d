"""Signal propagation plots (Brock, De and Smith 2021) of any traced model.

`_signal_batch` adds up, batch by batch and in float64, what means and variances per channel need, at each block's skip,
branch and sum; here the sums of all batches become moments.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid._progress import how_many, progress
from unbraid._renamed import keep_before
from unbraid.form import ResidualForm
from unbraid.gradients._signal_batch import BRANCH, PRODUCT, SKIP, SOURCE, SUM, NotFinite, Propagated
from unbraid.results import Brief, Result, classification_loss, finite
from unbraid.results.rows import Row, as_rows, numbered
from unbraid.sweep import Batches, Resume, each_row


@dataclass(frozen=True, eq=False, repr=False)
class Moments(Brief):
    """Mean and variance of a stream at every block, over the examples and positions of a data set.

    Attributes:
        squared_mean: the mean over channels of the squared mean of each channel, [blocks].
        variance: the mean over channels of the variance of each channel, [blocks].
    """

    squared_mean: Float[Tensor, " blocks"]
    variance: Float[Tensor, " blocks"]


@dataclass(frozen=True, eq=False, repr=False)
class Signal(Result):
    """How the signal travels through depth: signal propagation plots (Brock, De and Smith 2021) of any traced model.

    Attributes:
        names: of the top-level blocks.
        source: the moments of the stream at the first fork, [1].
        sum: the moments of each block's sum.
        skip: of its skip; nan in a plain layer, and where it was deleted.
        branch: of the sum of its branches, or of all of them side by side; nan where they were deleted.
        correlation: Σ_c cov_c(skip, branch) / √(Σ_c var_c(skip) Σ_c var_c(branch)) for each block, over channels c; nan
            where one is constant, or where they lie side by side and so have no channel in common.
        gradient: the mean over examples of ‖∂loss/∂sum‖ for each block; nan where no loss was given.
        examples: how many there were.
        not_finite: where nan or infinity first appears; None where all is finite.
    """

    names: tuple[str, ...]
    source: Moments
    sum: Moments
    skip: Moments
    branch: Moments
    correlation: Float[Tensor, " blocks"]
    gradient: Float[Tensor, " blocks"]
    examples: int
    not_finite: NotFinite | None

    columns = (
        ("", "{number:d}"),
        ("block", "{block}"),
        ("mean²", "{mean²:.3g}"),
        ("variance", "{variance:.3g}"),
        ("skip", "{skip:.3g}"),
        ("branch", "{branch:.3g}"),
        ("correlation", "{correlation:.3g}"),
        ("‖gradient‖", "{gradient:.3g}"),
    )
    entries = ("names", "source", "sum", "skip", "branch", "correlation", "gradient", "examples", "not_finite")

    @property
    def caption(self) -> str:
        """How many examples there were, and where nan or infinity first appears."""
        said = "all values are finite" if self.not_finite is None else f"not finite first at {self.not_finite.where}"
        return f"{self.examples:,} examples; {said}"

    @property
    def ratio(self) -> Float[Tensor, " blocks"]:
        """√(variance of the branch / variance of the skip): how loud each branch is beside its skip."""
        return (self.branch.variance / self.skip.variance).sqrt()

    def rows(self) -> list[Row]:
        """One row per block."""
        return as_rows(
            {
                "block": self.names,
                "mean²": self.sum.squared_mean,
                "variance": self.sum.variance,
                "skip": self.skip.variance,
                "branch": self.branch.variance,
                "correlation": self.correlation,
                "gradient": self.gradient,
            }
        )

    def _table_rows(self) -> list[Row]:
        return numbered(self.rows())

    def scalars(self) -> dict[str, float]:
        """The variance of the stream at its two ends, and the norm of the gradient at the first and last sum."""
        ends = {"variance, source": self.source.variance[0], "variance, last block": self.sum.variance[-1]}
        ends |= {"gradient, first block": self.gradient[0], "gradient, last block": self.gradient[-1]}
        return finite({name: float(value) for name, value in ends.items()})

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """Variance of sum, skip and branch, and the gradient, by depth."""
        from unbraid.draw.gradients import signal as figure

        return figure(
            self.sum.variance.tolist(),
            self.branch.variance.tolist(),
            self.gradient.tolist(),
            ax=ax,
        )


@keep_before
@outside_modes
def signal(
    form: ResidualForm,
    batches: Batches,
    *,
    loss: Callable[[Any, Any], Tensor] | None = classification_loss,
    resume: Path | str | None = None,
) -> Signal:
    """Mean, variance and correlation at every addition over a data set, and the gradient's norm at the same points.

    Channels are the dimension that a block's branch takes for them; moments are over examples and positions. Sums run
    along, in float64, so that memory does not grow with the data.

    Args:
        form: a traced model, or the chain of a plain one.
        batches: any iterable of (inputs, labels).
        loss: a function (what the model returns, labels) -> [batch] whose gradient is followed, by default the
            cross-entropy of class scores; None for the forward signal alone.
        resume: an SQLite file in which finished batches are kept, so that the same call goes on from there; see
            `lesion`.

    Raises:
        DataError: there is no batch, or one is no pair of inputs and labels.
        ValueError: the loss does not fit the output.
    """
    of = Propagated(form, loss)
    total: dict[str, Tensor] = {}
    bad: NotFinite | None = None
    with progress("signal", how_many(batches)) as step:
        for row in each_row(form, batches, of.row, Resume(resume, "signal", loss is None)):
            bad = bad or of.not_finite(row)
            for name, value in row.items():
                total[name] = total[name] + value if name in total else value
            step()
    return _signal(of, total, bad)


def _signal(of: Propagated, total: Mapping[str, Tensor], bad: NotFinite | None) -> Signal:
    places = range(len(of.adds))

    def channels(what: str) -> list[_Channels | None]:
        return [_Channels.of(total, place, what) for place in places]

    by_stream = {what: channels(what) for what in (SUM, SKIP, BRANCH)}
    examples = int(total["examples"])
    no_loss = torch.full((len(of.adds),), torch.nan, dtype=torch.float64, device="cpu")
    return Signal(
        names=tuple(of.form.blocks[add.block].name for add in of.adds),
        source=_moments([_Channels.of(total, 0, SOURCE)]),
        sum=_moments(by_stream[SUM]),
        skip=_moments(by_stream[SKIP]),
        branch=_moments(by_stream[BRANCH]),
        correlation=torch.tensor(
            [_correlation(total.get(f"{p} {PRODUCT}"), by_stream[SKIP][p], by_stream[BRANCH][p]) for p in places],
            dtype=torch.float64,
            device="cpu",
        ),
        gradient=total["gradients"].cpu() / examples if "gradients" in total else no_loss,
        examples=examples,
        not_finite=bad,
    )


@dataclass(frozen=True, eq=False)
class _Channels:
    """Mean and mean square over examples and positions, one per channel; of how many."""

    count: Tensor
    mean: Tensor
    square: Tensor

    @classmethod
    def of(cls, total: Mapping[str, Tensor], place: int, what: str) -> "_Channels | None":
        """From sums; None where there is no such stream."""
        if f"{place} {what}" not in total:
            return None
        count = total[f"{place} {what} count"]
        return cls(count, total[f"{place} {what}"] / count, total[f"{place} {what} squares"] / count)

    @property
    def variance(self) -> Tensor:
        return (self.square - self.mean.square()).clamp_min(0)


def _moments(per_block: list[_Channels | None]) -> Moments:
    nan = torch.tensor(torch.nan, dtype=torch.float64, device="cpu")
    means = [nan if channels is None else channels.mean.square().mean().cpu() for channels in per_block]
    variances = [nan if channels is None else channels.variance.mean().cpu() for channels in per_block]
    return Moments(torch.stack(means), torch.stack(variances))


def _correlation(products: Tensor | None, skip: _Channels | None, branch: _Channels | None) -> float:
    if products is None or skip is None or branch is None:
        return float("nan")
    covariance = (products / skip.count - skip.mean * branch.mean).sum()
    scale = (skip.variance.sum() * branch.variance.sum()).sqrt()
    return float(covariance / scale) if scale > 0 else float("nan")

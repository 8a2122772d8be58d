from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from rich import box
from rich.table import Table
from torch import Tensor

from unbraid._progress import how_many, progress
from unbraid.form import (
    Batch,
    Batches,
    ResidualForm,
    Result,
    channel_dimension,
    classification_loss,
    each_batch,
    finite,
    objective,
)
from unbraid.graph import Add, Segment, makes, reads
from unbraid.walk import Cotangents, Tape, walk

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUM, SKIP, BRANCH = "sum", "skip", "branch"


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance of a stream at every block, over the examples and positions of a data set.

    Attributes:
        squared_mean: the mean over channels of the squared mean of each channel, [blocks].
        variance: the mean over channels of the variance of each channel, [blocks].
    """

    squared_mean: Float[Tensor, " blocks"]
    variance: Float[Tensor, " blocks"]


@dataclass(frozen=True)
class NotFinite:
    """Where nan or infinity first appears.

    Attributes:
        where: "block 3 ('layer2.0')", the trunk before a block, or the head.
        way: "forward", or "backward" for a gradient.
    """

    where: str
    way: str


@dataclass(frozen=True, eq=False)
class Signal(Result):
    """How the signal travels through depth: signal propagation plots (Brock, De and Smith 2021) of any traced model.

    Attributes:
        names: of the top-level blocks.
        source: the moments of the stream at the first fork, [1].
        sum: the moments of each block's sum.
        skip: of its skip; nan in a plain layer.
        branch: of the sum of its branches.
        correlation: Σ_c cov_c(skip, branch) / √(Σ_c var_c(skip) Σ_c var_c(branch)) for each block, over channels c; nan
            where one is constant.
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

    @property
    def ratio(self) -> Float[Tensor, " blocks"]:
        """√(variance of the branch / variance of the skip): how loud each branch is beside its skip."""
        return (self.branch.variance / self.skip.variance).sqrt()

    def table(self) -> Table:
        """One row a block."""
        said = "all values are finite" if self.not_finite is None else f"not finite first at {self.not_finite.where}"
        table = Table(box=box.SIMPLE_HEAD, caption=f"{self.examples:,} examples; {said}")
        table.caption_justify = "left"
        columns = ("", "block", "mean²", "variance", "skip", "branch", "correlation", "‖gradient‖")
        for column in columns:
            table.add_column(column, justify="left" if column == "block" else "right")
        for k, name in enumerate(self.names):
            moments = (self.sum.squared_mean, self.sum.variance, self.skip.variance, self.branch.variance)
            numbers = [f"{row[k]:.3g}" for row in (*moments, self.correlation, self.gradient)]
            table.add_row(str(k), name, *numbers)
        return table

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        parts = {"source": self.source, SUM: self.sum, SKIP: self.skip, BRANCH: self.branch}
        moments = {
            name: {"squared_mean": found.squared_mean.tolist(), "variance": found.variance.tolist()}
            for name, found in parts.items()
        }
        bad = self.not_finite and {"where": self.not_finite.where, "way": self.not_finite.way}
        return {
            "names": list(self.names),
            **moments,
            "correlation": self.correlation.tolist(),
            "gradient": self.gradient.tolist(),
            "examples": self.examples,
            "not_finite": bad,
        }

    def rows(self) -> list[dict[str, Any]]:
        """One a block."""
        columns = {
            "mean²": self.sum.squared_mean,
            "variance": self.sum.variance,
            "skip": self.skip.variance,
            "branch": self.branch.variance,
            "correlation": self.correlation,
            "gradient": self.gradient,
        }
        return [
            {"block": name, **{what: float(values[k]) for what, values in columns.items()}}
            for k, name in enumerate(self.names)
        ]

    def scalars(self) -> dict[str, float]:
        """The variance of the stream at its two ends, and the norm of the gradient at the first and last sum."""
        found = {"variance, source": self.source.variance[0], "variance, last block": self.sum.variance[-1]}
        found |= {"gradient, first block": self.gradient[0], "gradient, last block": self.gradient[-1]}
        return finite({name: float(value) for name, value in found.items()})

    def plot(self, *, ax: "Axes | None" = None) -> "Figure":
        """Variance of sum, skip and branch, and the gradient, by depth."""
        from unbraid.draw import signal as figure

        return figure(
            self.sum.variance.tolist(),
            self.branch.variance.tolist(),
            self.gradient.tolist(),
            ax=ax,
        )


def signal(
    form: ResidualForm,
    batches: Batches,
    *,
    loss: Callable[[Any, Any], Tensor] | None = classification_loss,
) -> Signal:
    """Mean, variance and correlation at every addition over a data set, and the gradient's norm at the same points.

    Channels are the dimension that a block's branch takes for them; moments are over examples and positions. Sums run
    along, in float64, so that memory does not grow with the data.

    Args:
        form: a traced model, or the chain of a plain one.
        batches: any iterable of (inputs, labels).
        loss: a function (output, labels) -> [batch] whose gradient is followed, by default the cross-entropy of class
            scores; None for the forward signal alone.

    Raises:
        DataError: there is no batch, or one is no pair of inputs and labels.
        ValueError: the loss does not fit the output.
    """
    adds = [add for add in form.adds if add.block < len(form.blocks)]
    sums = _Sums(form, adds)
    with progress("signal", how_many(batches)) as step:
        for batch in each_batch(form, batches):
            sums.add(batch, loss)
            step()
    return sums.signal()


class _Sums:
    """Running sums over batches."""

    def __init__(self, form: ResidualForm, adds: list[Add]) -> None:
        self.form, self.adds = form, adds
        self.channels = [channel_dimension(form, add.block) for add in adds]
        self.moments: dict[tuple[int, str], _Channels] = {}
        self.products: list[Tensor | float] = [0.0] * len(adds)
        self.gradient = torch.full((len(adds),), torch.nan, dtype=torch.float64)
        self.examples = 0
        self.bad: NotFinite | None = None

    def add(self, batch: Batch, loss: Callable[[Any, Any], Tensor] | None) -> None:
        tape = self.form.tape(batch.args, batch.kwargs)
        self.bad = self.bad or _first_not_finite(self.form, tape)
        self._note(-1, "source", tape.values[self.adds[0].fork], self.channels[0])
        for place, (add, channels) in enumerate(zip(self.adds, self.channels, strict=True)):
            branches = [tape.values[stream] for stream in add.branches if stream is not None]
            branch = sum(branches[1:], start=branches[0])
            self._note(place, SUM, tape.values[add.output], channels)
            self._note(place, BRANCH, branch, channels)
            if add.skip is not None:
                skip = tape.values[add.skip]
                self._note(place, SKIP, skip, channels)
                self.products[place] += (_rows(skip, channels) * _rows(branch, channels)).sum(1)
        if loss is not None:
            norms = self._gradients(tape, batch, loss)
            kept = torch.zeros_like(norms) if self.examples == 0 else self.gradient * self.examples
            self.gradient = (kept + batch.size * norms) / (self.examples + batch.size)
        self.examples += batch.size

    def _note(self, place: int, what: str, value: Tensor, channels: int) -> None:
        rows = _rows(value, channels)
        found = self.moments.setdefault((place, what), _Channels())
        found.count += rows.shape[1]
        found.total = found.total + rows.sum(1)
        found.squares = found.squares + rows.square().sum(1)

    def _gradients(self, tape: Tape, batch: Batch, loss: Callable[[Any, Any], Tensor]) -> Tensor:
        """‖∂loss/∂sum‖ of each block, averaged over the batch; 0 where no gradient arrives."""
        aim = objective(tape.values[self.form.output], lambda output: loss(output, batch.labels))
        algebra = Cotangents(self.form.graph, tape)
        sums = [add.output for add in self.adds]
        found = walk(self.form.graph, algebra, {self.form.output: aim.cotangent}, sums)
        norms = []
        for add in reversed(self.adds):
            gradient = found.get(add.output, torch.zeros_like(tape.values[add.output]))
            norms.append(gradient.reshape(len(gradient), -1).double().norm(dim=1).mean())
            if self.bad is None and not bool(gradient.isfinite().all()):
                self.bad = NotFinite(_block(self.form, add.block), "backward")
        return torch.stack(norms[::-1]).cpu()

    def signal(self) -> Signal:
        places = range(len(self.adds))
        found = {what: [self.moments.get((p, what)) for p in places] for what in (SUM, SKIP, BRANCH)}
        return Signal(
            names=tuple(self.form.blocks[add.block].name for add in self.adds),
            source=_moments([self.moments[-1, "source"]]),
            sum=_moments(found[SUM]),
            skip=_moments(found[SKIP]),
            branch=_moments(found[BRANCH]),
            correlation=torch.tensor(
                [_correlation(*found_at) for found_at in zip(self.products, found[SKIP], found[BRANCH], strict=True)],
                dtype=torch.float64,
            ),
            gradient=self.gradient,
            examples=self.examples,
            not_finite=self.bad,
        )


class _Channels:
    """Sums over examples and positions, one a channel."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor = torch.zeros(())
        self.squares: Tensor = torch.zeros(())

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    @property
    def variance(self) -> Tensor:
        return (self.squares / self.count - self.mean.square()).clamp_min(0)


def _moments(found: list[_Channels | None]) -> Moments:
    nan = torch.tensor(torch.nan, dtype=torch.float64)
    means = [nan if channels is None else channels.mean.square().mean().cpu() for channels in found]
    variances = [nan if channels is None else channels.variance.mean().cpu() for channels in found]
    return Moments(torch.stack(means), torch.stack(variances))


def _correlation(products: Tensor | float, skip: _Channels | None, branch: _Channels | None) -> float:
    if skip is None or branch is None:
        return float("nan")
    covariance = (products / skip.count - skip.mean * branch.mean).sum()
    scale = (skip.variance.sum() * branch.variance.sum()).sqrt()
    return float(covariance / scale) if scale > 0 else float("nan")


def _rows(value: Tensor, channels: int) -> Tensor:
    """[channels, everything else], in float64."""
    return value.movedim(channels, 0).flatten(1).double() if value.ndim > 1 else value[None].double()


def _first_not_finite(form: ResidualForm, tape: Tape) -> NotFinite | None:
    """The first step that makes nan or infinity of finite numbers; masks, which may hold −∞, carry no data."""
    bad: set[str] = set()
    for step in form.graph.steps:
        if any(_is_bad(form, tape.values, stream) for stream in makes(step)) and bad.isdisjoint(reads(step)):
            return NotFinite(_place(form, step), "forward")
        bad.update(stream for stream in makes(step) if _is_bad(form, tape.values, stream))
    return None


def _is_bad(form: ResidualForm, values: Mapping[str, Any], stream: str) -> bool:
    return stream in form.graph.carried and not bool(values[stream].isfinite().all())


def _place(form: ResidualForm, step: Add | Segment) -> str:
    top = {block.index for block in form.blocks}
    if step.block is not None:
        outer = step.block
        while outer not in top:
            parent = next(block.parent for block in form.all_blocks if block.index == outer)
            assert parent is not None
            outer = parent[0]
        return _block(form, outer)
    later = [add.block for add in form.adds[::-1] if add.block in top and _before(form, step, add)]
    return f"the trunk before {_block(form, later[-1])}" if later else "the head"


def _before(form: ResidualForm, step: Add | Segment, add: Add) -> bool:
    order = {id(found): number for number, found in enumerate(form.graph.steps)}
    return order[id(step)] < order[id(add)]


def _block(form: ResidualForm, block: int) -> str:
    return f"block {block} ({form.blocks[block].name!r})"

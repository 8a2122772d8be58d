"""How much of what a model does its circuits do, by the number of their edges.

    f(C) = (m(C) − m(∅)) / (m(all) − m(∅))          m: the metric, all edges outside of C replaced

    CPR    ∫ f over the share of edges, from 0 to 1              circuit performance ratio
    CMD    ∫ |1 − f|                                             circuit-model distance

as the MIB benchmark has them (Mueller et al. 2025); f(∅) = 0 and f(all) = 1 are ends of the curve. Completeness is the
same of the complement: what all edges but the circuit's do. Intervals are of 1,000 resamples of the examples.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid._progress import how_many, progress
from unbraid.circuits._circuit import Circuit
from unbraid.errors import DataError
from unbraid.form import ResidualForm
from unbraid.results import Result
from unbraid.results.rows import Row, as_rows

_RESAMPLES = 1000


@dataclass(frozen=True, eq=False, repr=False)
class Faithfulness(Result):
    """The share of a model's metric that its circuits keep, by their size.

    Attributes:
        sizes: how many edges each circuit has, after dead ends were left out.
        shares: the same as a share of the model's edges.
        faithfulness: f of each circuit.
        completeness: f of each circuit's complement.
        low: the 2.5 % quantile of f over resamples of the examples.
        high: the 97.5 % quantile.
        cpr: the area under f over the share of edges.
        cpr_interval: its 2.5 % and 97.5 % quantiles.
        cmd: the area between f and 1.
        cmd_interval: its 2.5 % and 97.5 % quantiles.
        whole: the metric of the whole model.
        nothing: the metric with every edge replaced.
        examples: how many examples there were; batches, where the metric gives one number for each.
    """

    sizes: tuple[int, ...]
    shares: tuple[float, ...]
    faithfulness: Float[Tensor, " sizes"]
    completeness: Float[Tensor, " sizes"]
    low: Float[Tensor, " sizes"]
    high: Float[Tensor, " sizes"]
    cpr: float
    cpr_interval: tuple[float, float]
    cmd: float
    cmd_interval: tuple[float, float]
    whole: float
    nothing: float
    examples: int

    columns = (
        ("edges", "{edges:d}"),
        ("share", "{share:.1%}"),
        ("faithfulness", "{faithfulness:+.3f}"),
        ("from", "{low:+.3f}"),
        ("to", "{high:+.3f}"),
        ("complement", "{completeness:+.3f}"),
    )

    @property
    def caption(self) -> str:
        """The areas, and what 1 and 0 stand for."""
        areas = [
            f"{name} {value:.3f} ({low:.3f} to {high:.3f})"
            for name, value, (low, high) in (("CPR", self.cpr, self.cpr_interval), ("CMD", self.cmd, self.cmd_interval))
        ]
        return f"{', '.join(areas)}; 1 is {self.whole:.4g}, 0 is {self.nothing:.4g}; {self.examples:,} examples"

    def rows(self) -> list[Row]:
        """One row per circuit."""
        columns = {"edges": self.sizes, "share": self.shares, "faithfulness": self.faithfulness}
        return as_rows({**columns, "low": self.low, "high": self.high, "completeness": self.completeness})

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The curve with its interval, and the complement's."""
        from unbraid.draw.circuits import faithfulness

        curves = (self.faithfulness, self.low, self.high, self.completeness)
        return faithfulness(self.shares, *(curve.tolist() for curve in curves), ax=ax)


def faithfulness(
    form: ResidualForm,
    circuits: Sequence[Circuit],
    every: Circuit,
    batches: Iterable[Any],
    metric: Callable[[Any, Any], Tensor],
    fill: str | None,
) -> Faithfulness:
    """The curve over some circuits; see `EdgeStudy.faithfulness`.

    Raises:
        DataError: there is no batch, or one is not of the kind that the study takes.
        ValueError: the metric of the whole model is that with every edge replaced.
    """
    empty = Circuit((), every.of, every.by, every.nested)
    rests = [Circuit(tuple(e for e in every.edges if e not in c), c.of, c.by, c.nested) for c in circuits]
    variants = [every, empty, *circuits, *rests]
    rows = list[Tensor]()
    with progress("circuits", how_many(batches)) as step:
        for number, batch in enumerate(batches):
            clean, corrupt, labels = _parts(batch, number, fill)
            rows.append(torch.stack([_metric(form, v, clean, corrupt, labels, metric, fill) for v in variants]))
            step()
    if not rows:
        raise DataError("faithfulness: there is no batch.")
    numbers = torch.cat(rows, 1).double().cpu()
    shares = tuple(circuit.share for circuit in circuits)
    drawn = torch.randint(
        numbers.shape[1], (_RESAMPLES, numbers.shape[1]), generator=torch.Generator().manual_seed(0), device="cpu"
    )
    kept, rest, (cpr, cmd) = _curves(numbers.mean(1), len(circuits), shares)
    whole, nothing = numbers[:2].mean(1).tolist()
    if not abs(whole - nothing) > 1e-12 * max(abs(whole), abs(nothing)):
        raise ValueError(
            f"faithfulness: the metric is {whole:.6g} both of the whole model and with every edge replaced; there is "
            "nothing of which a circuit could keep a share. Choose another metric, or corrupt inputs that change it."
        )
    resampled = [_curves(numbers[:, draw].mean(1), len(circuits), shares) for draw in drawn]
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64, device="cpu")
    low, high = torch.stack([curve for curve, _, _ in resampled]).nanquantile(ends, 0)
    areas = torch.tensor([area for _, _, area in resampled], dtype=torch.float64, device="cpu").nanquantile(ends, 0)
    return Faithfulness(
        tuple(len(circuit) for circuit in circuits),
        shares,
        kept,
        rest,
        low,
        high,
        cpr,
        (float(areas[0, 0]), float(areas[1, 0])),
        cmd,
        (float(areas[0, 1]), float(areas[1, 1])),
        whole,
        nothing,
        numbers.shape[1],
    )


def _curves(means: Tensor, count: int, shares: Sequence[float]) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """F of the circuits and of their complements, and the two areas."""
    whole, nothing = means[0], means[1]
    ratios = (means[2:] - nothing) / (whole - nothing)
    curve = torch.cat([ratios.new_zeros(1), ratios[:count], ratios.new_ones(1)])
    at = torch.tensor([0.0, *shares, 1.0], dtype=curve.dtype, device=curve.device)
    order = at.argsort(stable=True)
    at, curve = at[order], curve[order]
    areas = float(torch.trapezoid(curve, at)), float(torch.trapezoid((1 - curve).abs(), at))
    return ratios[:count], ratios[count:], areas


def _parts(batch: Any, number: int, fill: str | None) -> tuple[Any, Any, Any]:
    wanted = ("clean", "corrupt", "labels") if fill is None else ("clean", "labels")
    if not isinstance(batch, list | tuple) or len(batch) != len(wanted):
        came = f"{len(batch)} parts" if isinstance(batch, list | tuple) else type(batch).__name__
        raise DataError(f"faithfulness: each batch is ({', '.join(wanted)}); batch {number} is {came}.")
    return (batch[0], None, batch[1]) if fill is not None else (batch[0], batch[1], batch[2])


def _metric(
    form: ResidualForm,
    circuit: Circuit,
    clean: Any,
    corrupt: Any,
    labels: Any,
    metric: Callable[[Any, Any], Tensor],
    fill: str | None,
) -> Tensor:
    """The metric of each example, or of the batch."""
    left = form.only(circuit, corrupt=corrupt, fill=fill)
    with torch.no_grad():
        value = metric(left(**clean) if isinstance(clean, dict) else _called(left, clean), labels)
    return torch.as_tensor(value, device="cpu").reshape(-1)


def _called(form: ResidualForm, clean: Any) -> Any:
    return form(clean) if isinstance(clean, Tensor) else form(*clean)

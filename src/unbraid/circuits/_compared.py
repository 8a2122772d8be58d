"""How alike two scores of the same edges are, and how sure the strongest edges are."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from unbraid._figures import Axes, Figure
from unbraid.circuits._circuit import Circuit
from unbraid.results import Result
from unbraid.results.rows import Row, as_rows


@runtime_checkable
class Scores(Protocol):
    """The effects of edges, as `EdgeStudy` has them."""

    @property
    def writers(self) -> tuple[str, ...]:
        """Their names."""

    @property
    def readers(self) -> tuple[str, ...]:
        """Their names."""

    @property
    def effects(self) -> Tensor:
        """[writers, readers]; nan where there is no edge."""


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """How alike two scores of the same edges are; nan for what does not apply.

    Attributes:
        pearson: the correlation of the effects.
        spearman: the correlation of the ranks of the |effects|.
        overlap: of the n strongest edges of both, the share that are the same.
        auroc: the chance that an edge of the known circuit has a larger |effect| than another edge, ties counted half.
        n: how many edges overlap was measured on.
    """

    pearson: float
    spearman: float
    overlap: float
    auroc: float
    n: int

    columns = (("", "{measure}"), ("", "{value:.4f}"))

    def rows(self) -> list[Row]:
        """One row per measure."""
        values = {"pearson": self.pearson, "spearman": self.spearman, "overlap": self.overlap, "auroc": self.auroc}
        return as_rows({"measure": list(values), "value": list(values.values())})

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The measures that apply, side by side."""
        from unbraid.draw import contributions

        measures = [(row["measure"], row["value"]) for row in self.rows() if math.isfinite(row["value"])]
        names, values = zip(*measures, strict=True)
        return contributions(names, values, ax=ax)


@dataclass(frozen=True, eq=False, repr=False)
class Stability(Result):
    """How often each edge is among the strongest where the examples are drawn anew.

    Attributes:
        writers: the names of the writers.
        readers: the names of the readers.
        frequency: the share of the resamples in which the edge is among the n strongest, [writers, readers]; nan where
            there is no edge.
        n: how many edges are taken.
        draws: how many resamples there were.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    frequency: Float[Tensor, "writers readers"]
    n: int
    draws: int

    columns = (("from", "{writer}"), ("to", "{reader}"), ("in the circuit", "{frequency:.0%}"))

    @property
    def caption(self) -> str:
        """How the numbers were made."""
        return f"of {self.draws} resamples of the examples, those in which an edge is among the {self.n} strongest"

    def rows(self) -> list[Row]:
        """One row per edge that is among them at least once, the most frequent first."""
        there = [(i, j) for i, j in self.frequency.nan_to_num().nonzero().tolist()]
        there.sort(key=lambda edge: -float(self.frequency[edge]))
        columns = {
            "writer": [self.writers[i] for i, _ in there],
            "reader": [self.readers[j] for _, j in there],
            "frequency": [float(self.frequency[i, j]) for i, j in there],
        }
        return as_rows(columns)

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The frequencies as a map."""
        from unbraid.draw.circuits import edges

        return edges(self.writers, self.readers, self.frequency.tolist(), label="share of the resamples", ax=ax)


def stability(
    writers: tuple[str, ...], readers: tuple[str, ...], each: Tensor, n: int, draws: int, generator: Generator | None
) -> Stability:
    """How often each edge is among the n strongest; see `EdgeStudy.stability`."""
    there = ~each[..., 0].isnan()
    values = each[there].double().cpu()
    if not 1 <= n <= len(values) or draws < 1:
        raise ValueError(
            f"stability: n is 1 to {len(values)}, the number of edges, and draws at least 1; {n}, {draws}."
        )
    drawn = generator if generator is not None else Generator().manual_seed(0)
    counts = torch.zeros(len(values), dtype=torch.float64, device="cpu")
    for _ in range(draws):
        chosen = torch.randint(values.shape[1], (values.shape[1],), generator=drawn, device=drawn.device).cpu()
        counts[values[:, chosen].mean(1).abs().topk(n).indices] += 1
    frequency = torch.full(there.shape, torch.nan, dtype=torch.float64, device="cpu")
    frequency[there.cpu()] = counts / draws
    return Stability(writers, readers, frequency, n, draws)


def compared(scores: Scores, other: Scores | Circuit, n: int | None) -> Comparison:
    """How alike scores are to others, or to a known circuit; see `EdgeStudy.compare`."""
    nan, there = float("nan"), ~scores.effects.isnan()
    here = scores.effects[there].double().cpu()
    if isinstance(other, Circuit):
        names = [(scores.writers[i], scores.readers[j]) for i, j in there.nonzero().tolist()]
        if unknown := [edge for edge in other.edges if edge not in names]:
            raise ValueError(f"compare: the circuit's edge {unknown[0]} is none of the study's.")
        known = torch.tensor([edge in other for edge in names], device="cpu")
        n = len(other)
        strongest = here.abs().topk(n).indices if n else torch.empty(0, dtype=torch.int64, device="cpu")
        overlap = float(known[strongest].double().mean()) if n else nan
        return Comparison(nan, nan, overlap, _auroc(here.abs(), known), n)
    same = (scores.writers, scores.readers) == (other.writers, other.readers)
    if not same or not torch.equal(there, ~other.effects.isnan()):
        raise ValueError(
            "compare: both must be studies of the same edges: of one form, by the same writers and readers."
        )
    beside = other.effects[there].double().cpu()
    n = max(1, len(here) // 10) if n is None else n
    if not 1 <= n <= len(here):
        raise ValueError(f"compare: n is 1 to {len(here)}, the number of edges; {n} came.")
    ours, theirs = (set(values.abs().topk(n).indices.tolist()) for values in (here, beside))
    ranks = _ranks(here.abs()), _ranks(beside.abs())
    return Comparison(_pearson(here, beside), _pearson(*ranks), len(ours & theirs) / n, nan, n)


def _pearson(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()))


def _ranks(values: Tensor) -> Tensor:
    """The ranks, equal values sharing theirs."""
    below = (values[:, None] > values[None, :]).double().sum(1)
    same = (values[:, None] == values[None, :]).double().sum(1)
    return below + (same - 1) / 2


def _auroc(values: Tensor, known: Tensor) -> float:
    inside, outside = values[known], values[~known]
    if not len(inside) or not len(outside):
        return float("nan")
    wins = (inside[:, None] > outside[None, :]).double() + 0.5 * (inside[:, None] == outside[None, :]).double()
    return float(wins.mean())

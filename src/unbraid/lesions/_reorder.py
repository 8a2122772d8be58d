"""The metric of a model whose blocks run in other orders (Veit et al. 2016, section 4.3).

An order comes from a number of random swaps of blocks that can change places; how far it is from the model's own is
Kendall's τ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations, repeat
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
from unbraid.sweep import Batches, Metric, Resume, sweep


@dataclass(frozen=True, repr=False)
class ReorderStudy(Result):
    """A metric of a model whose blocks run in other orders (Veit et al. 2016, section 4.3).

    Attributes:
        whole: the metric of the model as it is, averaged over all examples.
        swaps: how many pairs of blocks were swapped, for each order.
        orders: the orders, as indices of the blocks; the i-th runs i-th.
        tau: Kendall's τ of each order with the original one, from 1 (unchanged) to −1 (reversed).
        metrics: the metric in each order.
        examples: how many examples there were.
        stacked: whether several orders ran together as one larger batch.
    """

    whole: float
    swaps: tuple[int, ...]
    orders: tuple[tuple[int, ...], ...]
    tau: tuple[float, ...]
    metrics: tuple[float, ...]
    examples: int
    stacked: bool

    columns = (
        ("swaps", "{swaps:d}"),
        ("orders", "{orders:d}"),
        ("mean τ", "{tau:.4g}"),
        ("mean metric", "{mean:.4g}"),
        ("least", "{least:.4g}"),
        ("most", "{most:.4g}"),
    )

    @property
    def caption(self) -> str:
        """How the numbers were made."""
        return f"in its own order: {self.whole:.4g}; pairs of blocks of equal shape swapped; {self.examples:,} examples"

    def to_dict(self) -> dict[str, Any]:
        """Every order with its τ and its metric as plain values."""
        columns = {"swaps": self.swaps, "order": map(list, self.orders), "tau": self.tau, "metric": self.metrics}
        return {
            "whole": self.whole,
            "orders": as_rows(columns),
            "examples": self.examples,
            "stacked": self.stacked,
        }

    def rows(self) -> list[Row]:
        """One row per order."""
        return as_rows({"swaps": self.swaps, "tau": self.tau, "metric": self.metrics})

    def _table_rows(self) -> list[Row]:
        """One row for each number of swaps."""
        by_swaps: dict[int, list[Row]] = {}
        for row in self.rows():
            by_swaps.setdefault(row["swaps"], []).append(row)
        return [_together(swaps, rows) for swaps, rows in sorted(by_swaps.items())]

    def plot(self, quantity: str = "metric", *, ax: Axes | None = None) -> Figure:
        """The metric against Kendall's τ; `quantity` says what it is, with its unit."""
        from unbraid import draw

        return draw.reorderings(self.tau, self.metrics, self.whole, quantity, ax=ax)


def _together(swaps: int, rows: list[Row]) -> Row:
    """The rows of one number of swaps as one."""
    taus, metrics = [row["tau"] for row in rows], [row["metric"] for row in rows]
    tau, mean = sum(taus) / len(taus), sum(metrics) / len(metrics)
    return {
        "swaps": swaps,
        "orders": len(rows),
        "tau": tau,
        "mean": mean,
        "least": min(metrics),
        "most": max(metrics),
    }


@keep_and_stateful_before
@outside_modes
def reorderings(
    form: ResidualForm,
    batches: Batches,
    metric: Metric,
    *,
    swaps: int | Sequence[int],
    repeats: int = 10,
    generator: torch.Generator | None = None,
    max_batch: int | None = None,
    allow_random: bool = False,
    resume: Path | str | None = None,
) -> ReorderStudy:
    """The metric after swaps of random pairs of blocks of equal shape, against Kendall's τ of the order.

    Each swap exchanges what stands at two positions, drawn evenly from all pairs whose blocks lie on one trunk and
    have one shape before and after them; several swaps follow one another.

    Args:
        form: a traced model, or a chain.
        batches: pairs of inputs and labels.
        metric: (what the model returns, labels) -> a scalar tensor; averaged over batches by their size.
        swaps: how many pairs are swapped, or several such numbers.
        repeats: how many random orders for each.
        generator: draws the pairs; with the seed 0 where none is given.
        max_batch: how many examples run at once at most, if more than a batch holds; None lets the memory decide.
        allow_random: accept random operators and norms in training; then nothing is stacked.
        resume: an SQLite file in which finished batches are kept, so that the same call goes on from there; see
            `lesion`.

    Raises:
        ValueError: no two blocks have one shape, or a random operator, or a norm in training, was not asked for; or a
            block would run before something that it reads.
        DataError: there is no batch.
    """
    if not allow_random:
        refuse_stateful(form.graph, "reorderings")
    counts = [swaps] if isinstance(swaps, int) else list(swaps)
    if min(counts, default=-1) < 0 or repeats < 1:
        raise ValueError(f"reorderings: swaps are numbers from 0 and repeats at least 1; got {counts} and {repeats}.")
    pairs = list(chain.from_iterable(combinations(sorted(group), 2) for group in form.interchangeable()))
    if not pairs:
        raise ValueError(
            "reorderings: no two blocks of this form lie on one trunk and have one shape, so none can swap."
        )
    drawn = generator if generator is not None else torch.Generator().manual_seed(0)
    swapped = tuple(chain.from_iterable(repeat(count, repeats) for count in counts))
    forms = [form.reorder(_order(len(form.blocks), pairs, count, drawn)) for count in swapped]
    variants = [form.graph.steps, *(other.graph.steps for other in forms)]
    swept = sweep(
        form,
        variants,
        batches,
        metric,
        max_batch=max_batch,
        stack=not allow_random,
        text="orders",
        resume=Resume(resume, "orders"),
    )
    place = {block: position for position, block in enumerate(form.order)}
    tau = tuple(kendall(list(map(place.__getitem__, other.order))) for other in forms)
    orders = tuple(other.order for other in forms)
    return ReorderStudy(swept.means[0], swapped, orders, tau, swept.means[1:], swept.examples, swept.stacked)


def kendall(order: Sequence[int]) -> float:
    """Kendall's τ of a permutation with the sorted one: 1 − 4·inversions / (n(n − 1)); 1 where n < 2."""
    n = len(order)
    inversions = sum(earlier > later for earlier, later in combinations(order, 2))
    return 1 - 4 * inversions / (n * (n - 1)) if n > 1 else 1.0


def _order(blocks: int, pairs: Sequence[tuple[int, int]], swaps: int, generator: torch.Generator) -> list[int]:
    order = list(range(blocks))
    for _ in range(swaps):
        a, b = pairs[int(torch.randint(len(pairs), (), generator=generator, device=generator.device))]
        order[a], order[b] = order[b], order[a]
    return order

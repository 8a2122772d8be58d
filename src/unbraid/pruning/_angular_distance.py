"""How far each run of consecutive blocks turns the stream (Gromov et al. 2024): the run to take out is the smallest."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid.form import ResidualForm
from unbraid.pruning._stream_readings import before_and_after, cosine, follows, read
from unbraid.results import Result
from unbraid.results.rows import Row, as_rows
from unbraid.sweep import Batches


@dataclass(frozen=True, eq=False, repr=False)
class AngularDistances(Result):
    """How far each run of n consecutive blocks turns the stream (Gromov et al. 2024).

    Attributes:
        span: n, the number of blocks in a run.
        names: the name of the block with which each run begins.
        distances: (1/π) E arccos cos(before, after), 0 for no turn and 1 for a reversal, one for each first block 0 to
            K − n; nan where the blocks lie on several trunks or the run changes the shape.
        examples: over how many examples they are means.
    """

    span: int
    names: tuple[str, ...]
    distances: Float64[Tensor, " starts"]
    examples: int

    columns = (
        ("blocks", "{first:d} to {last:d}"),
        ("begins with", "{begins with}"),
        ("angular distance", "{distance:.4g}"),
    )

    @property
    def caption(self) -> str:
        """What a distance is, over how many examples, and which run turns the stream least."""
        best = f"; blocks {self.best[0]} to {self.best[-1]} turn the stream least" if self.best else ""
        return f"(1/π) E arccos cos over {self.span} blocks; {self.examples:,} examples{best}"

    @property
    def best(self) -> tuple[int, ...]:
        """The blocks of the run that turns the stream least, for `form.without` and `prune`; none where none can go."""
        known = [(distance, start) for start, distance in enumerate(self.distances.tolist()) if distance == distance]
        return tuple(range(min(known)[1], min(known)[1] + self.span)) if known else ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values; None where a run has no distance."""
        distances = [None if math.isnan(distance) else distance for distance in self.distances.tolist()]
        return {
            "span": self.span,
            "names": list(self.names),
            "distances": distances,
            "best": list(self.best),
            "examples": self.examples,
        }

    def rows(self) -> list[Row]:
        """One row per run of blocks, by its first."""
        return as_rows({"first": range(len(self.names)), "begins with": self.names, "distance": self.distances})

    def _table_rows(self) -> list[Row]:
        return [{**row, "last": row["first"] + self.span - 1} for row in self.rows()]

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The distance of each run, by its first block."""
        from unbraid.draw import ranking

        label = f"angular distance over {self.span} blocks, in units of π"
        rest = f"and the next {self.span - 1} turn" if self.span > 1 else "turns"
        return ranking(self.names, self.distances.tolist(), label, least=f"{rest} the stream least", ax=ax)


@outside_modes
def angular_distance(form: ResidualForm, batches: Batches, *, span: int) -> AngularDistances:
    """The angle between the stream before and after each run of n consecutive blocks: d = (1/π) E arccos cos.

    Before is the first block's sum without its branches, its input where the skip is the identity; after is the last
    block's sum. Of a stream [batch, positions, features] the vectors at the last position are compared, as in the paper
    (Gromov et al. 2024, Equation 6): pad on the left. Of any other stream all numbers of an example are one vector.

    Args:
        form: a traced model.
        batches: pairs of inputs and labels; the labels are not used.
        span: n, how many blocks a run has; a transformer's layer is two.

    Returns:
        One distance for each first block, means over all examples in float64.

    Raises:
        ValueError: there are no n blocks.
        DataError: there is no batch, or one is no pair of inputs and labels.
    """
    count = len(form.blocks)
    if not 1 <= span <= count:
        raise ValueError(f"angular_distance: span is 1 to {count}, the number of blocks; {span} came.")
    joined = [follows(form, block) == block - 1 for block in range(1, count)]
    readings, places = [], []
    for start in range(count - span + 1):
        change = before_and_after(form, range(start, start + span))
        if change and all(joined[start : start + span - 1]):
            readings.append(change.reading(_angle))
            places.append(start)
    means, examples = read(form, batches, readings)
    distances = torch.full((count - span + 1,), float("nan"), dtype=torch.float64, device="cpu")
    distances[places] = torch.tensor(means, dtype=torch.float64, device="cpu")
    return AngularDistances(span, tuple(b.name for b in form.blocks[: count - span + 1]), distances, examples)


def _angle(before: Tensor, after: Tensor) -> Tensor:
    pair = [stream[:, -1] if stream.ndim == 3 else stream.flatten(1) for stream in (before, after)]
    return torch.arccos(cosine(pair[0], pair[1])) / math.pi

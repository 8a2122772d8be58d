"""The effects of all edges of a model: what each block tells each later block."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Generator, Tensor

from unbraid._figures import Axes, Figure
from unbraid.circuits._circuit import Circuit, Edge, strongest
from unbraid.circuits._compared import Comparison, Stability, compared, stability
from unbraid.circuits._faithfulness import Faithfulness, faithfulness
from unbraid.discover.wiring import CONSTANTS
from unbraid.form import ResidualForm
from unbraid.results import Result, said_of
from unbraid.results.rows import Row, as_rows

_SAID = {
    "attribution": "to first order",
    "exact": "each edge run by itself",
    "frozen": "in the frozen linearisation",
}


@dataclass(frozen=True, eq=False, repr=False)
class EdgeStudy(Result):
    """What each writer tells each reader: by how much a target changes where the edge between them is replaced.

    Attributes:
        writers: "input", the blocks in order or their branches, and "constants" last where the trunk adds any.
        readers: the blocks in order or their branches, and "head" last.
        effects: the target with edge i → j replaced less the target as it is, averaged over the examples, [writers,
            readers]; nan where there is no edge.
        per_example: the same for each example, [writers, readers, batch].
        target: the target as it is, [batch].
        error: by how much what must sum departs, relative to the largest part: by "attribution" the readers' gradients
            at each writer from the whole gradient there, and on a trunk of additions alone a reader's edges from the
            effect of all that it reads; by "frozen" a reader's edges from that effect on any trunk; 0 by "exact".
        interaction: for each reader, what its edges leave of the effect of all that it reads, [readers]: the trunk's
            ReLU and norms make of several changes another one than the sum. No error; nan where it is not known.
        method: "attribution", "exact" or "frozen".
        replaced: what took the place of clean values: "corrupt", "zero" or "mean".
        by: whether writers and readers are blocks, branches or attention heads.
        nested: whether blocks inside branches wrote and read in the place of those around them.
        steps: at how many points gradients were taken.
        summed: whether examples influence one another: then the batch's sum is split, and batch is 1.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    effects: Float[Tensor, "writers readers"]
    per_example: Float[Tensor, "writers readers batch"]
    target: Float[Tensor, " batch"]
    error: float
    interaction: Float[Tensor, " readers"]
    method: str
    replaced: str
    by: str = "block"
    nested: bool = False
    steps: int = 1
    summed: bool = False
    _form: ResidualForm | None = field(default=None, repr=False)

    columns = (("from", "{writer}"), ("to", "{reader}"), ("effect", "{effect:+.4g}"))
    entries = (
        "writers",
        "readers",
        "effects",
        "target",
        "error",
        "interaction",
        "method",
        "replaced",
        "steps",
        "summed",
    )

    @property
    def caption(self) -> str:
        """How the numbers were made."""
        place = {"corrupt": "values at the corrupt input", "zero": "zeros", "mean": "means"}[self.replaced]
        at = f", at {self.steps} points" if self.steps > 1 else ""
        exact = "" if self.method == "exact" else f"; sums hold to {self.error:.1e}"
        return f"{place} in the place of clean ones, {_SAID[self.method]}{at}{exact}{said_of(self.summed)}"

    def circuit(self, n: int | None = None, *, share: float | None = None) -> Circuit:
        """The strongest edges, without dead ends: each lies on a way from the input to the head.

        Args:
            n: how many of the edges with the largest |effect| are taken before dead ends are left out.
            share: or so many that their |effects| sum to this share of all; between 0 and 1.

        Raises:
            ValueError: neither or both are given, or out of range.
        """
        return Circuit(*strongest(self.writers, self.readers, self.effects, n, share), self.by, self.nested)

    def faithfulness(
        self,
        batches: Iterable[Any],
        metric: Callable[[Any, Any], Tensor],
        sizes: Iterable[int | float] = (0.02, 0.05, 0.1, 0.2, 0.5),
    ) -> Faithfulness:
        """How much of the model's metric circuits of several sizes keep; see `Faithfulness`.

        Args:
            batches: of (clean, corrupt, labels), or (clean, labels) where this study filled; inputs a tensor, a tuple
                or a dict.
            metric: (what the model returns, labels) -> one number for each example, or for the batch.
            sizes: numbers of edges, or shares of all of them below 1.

        Raises:
            DataError: there is no batch, or one is not of this kind.
            ValueError: a size is out of range; or replacing every edge leaves the metric as it is.
        """
        assert self._form is not None, "a study knows its form"
        there = int((~self.effects.isnan()).sum())
        counts = [size if isinstance(size, int) else max(1, round(size * there)) for size in sizes]
        circuits = [self.circuit(count) for count in counts]
        every = Circuit(self._edges, len(self._edges), self.by, self.nested)
        return faithfulness(
            self._form, circuits, every, batches, metric, None if self.replaced == "corrupt" else self.replaced
        )

    def stability(self, n: int, *, draws: int = 200, generator: Generator | None = None) -> Stability:
        """How often each edge is among the n strongest where the examples are drawn anew, with replacement.

        Args:
            n: the size of the circuit.
            draws: how many resamples.
            generator: of the draws; with the seed 0 where none is given.
        """
        return stability(self.writers, self.readers, self.per_example, n, draws, generator)

    def compare(self, other: "EdgeStudy | Circuit", *, n: int | None = None) -> Comparison:
        """How alike the effects are to another study's of the same edges; or how well they tell a known circuit's.

        Args:
            other: another study, or a circuit that is known.
            n: how many of the strongest edges of both overlap; by default a tenth of them.

        Raises:
            ValueError: the other has other edges.
        """
        return compared(self, other, n)

    @property
    def _edges(self) -> tuple[Edge, ...]:
        there = (~self.effects.isnan()).nonzero().tolist()
        return tuple((self.writers[i], self.readers[j]) for i, j in there if self.writers[i] != CONSTANTS)

    def rows(self) -> list[Row]:
        """One row per edge, the writers' in order."""
        there = (~self.effects.isnan()).nonzero().tolist()
        columns = {
            "writer": [self.writers[i] for i, _ in there],
            "reader": [self.readers[j] for _, j in there],
            "effect": [float(self.effects[i, j]) for i, j in there],
        }
        return as_rows(columns)

    def _table_rows(self) -> list[Row]:
        return sorted(self.rows(), key=lambda row: -abs(row["effect"]))

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The effects as a map, readers below one another and writers side by side."""
        from unbraid.draw.circuits import edges

        return edges(self.writers, self.readers, self.effects.tolist(), ax=ax)

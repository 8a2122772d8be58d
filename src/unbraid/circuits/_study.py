"""The effects of all edges of a model: what each block tells each later block."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid.circuits._circuit import Circuit, strongest
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

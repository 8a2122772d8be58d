"""Single paths, and what is known of each.

A path's *mask* has a number for each block: −2 not met, −1 the skip, j ≥ 0 branch j.
"""

import string
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int16, Int64
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid.form import Linearised
from unbraid.graph import SKIP
from unbraid.results import Result, said_of
from unbraid.results.rows import Row, as_rows
from unbraid.walk import NOT_MET

_DRAWN = 64
_DIGITS = string.digits + string.ascii_letters

_SHOWN = 100  # paths in the table


@dataclass(frozen=True, eq=False, repr=False)
class Paths(Result):
    """Single paths from the sources to the target, by the choice that each makes at every block.

    Attributes:
        blocks: the names of the blocks, one per column of `masks`.
        masks: for each path and block j ≥ 0 (branch j, from 0), −1 (the skip) or −2 (the path does not meet it).
        lengths: how many branches each path passes.
        values: the source times the gradient along the path, [paths, batch].
        norms: the 2-norm per example of the gradient along the path, averaged over the batch.
        constants: what no path from a source adds, [batch]: in the frozen linearisation values.sum(0) + constants is
            the target when all paths are given.
        target: the scalar that is explained, [batch].
        linearize: "frozen" or "jacobian".
        exact: whether these are the paths that were asked for; False for a search that may have missed some.
        error: how far all paths together depart from the whole, relative to the largest of them; nan where not all are
            given.
        summed: whether examples influence one another: then what is said of the batch is of its sum, and batch is 1.
    """

    blocks: tuple[str, ...]
    masks: Int16[Tensor, "paths blocks"]
    lengths: Int64[Tensor, " paths"]
    values: Float[Tensor, "paths batch"]
    norms: Float[Tensor, " paths"]
    constants: Float[Tensor, " batch"]
    target: Float[Tensor, " batch"]
    linearize: str
    exact: bool
    error: float
    summed: bool = False

    columns = (("path", "{path}"), ("length", "{length:d}"), ("value", "{value:+.4g}"), ("norm", "{norm:.4g}"))

    @property
    def caption(self) -> str:
        """How many paths there are, and of which linearisation."""
        return f"{len(self):,} paths; {self.linearize} linearisation{said_of(self.summed)}"

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, rows: slice | Tensor) -> "Paths":
        """Some of these paths."""
        return Paths(
            self.blocks,
            self.masks[rows],
            self.lengths[rows],
            self.values[rows],
            self.norms[rows],
            self.constants,
            self.target,
            self.linearize,
            self.exact,
            float("nan"),
            self.summed,
        )

    def mean_norms(self) -> Float[Tensor, "lengths two"]:
        """For each length the mean norm of its paths and the standard error of that mean; nan where there is none."""
        longest = int(self.lengths.max()) + 1
        rows = []
        for length in range(longest):
            norms = self.norms[self.lengths == length].double()
            spread = norms.std() / len(norms) ** 0.5 if len(norms) > 1 else torch.tensor(float("nan"), device="cpu")
            rows.append(
                torch.stack([norms.mean(), spread.to(norms)])
                if len(norms)
                else torch.full((2,), torch.nan, device="cpu")
            )
        return torch.stack([row.double() for row in rows])

    def rows(self) -> list[Row]:
        """One row per path: its choices as text, length, value averaged over the batch, and norm.

        The text of a path has one character per block: a dot for the skip, a digit (from 10 on a letter) for the
        branch, a blank where it does not meet the block. The table has the first hundred paths.
        """
        shown_paths = map(shown, self.masks)
        return as_rows({"path": shown_paths, "length": self.lengths, "value": self.values.mean(1), "norm": self.norms})

    def _table_rows(self) -> list[Row]:
        return self[:_SHOWN].rows()

    def scalars(self) -> dict[str, float]:
        """The mean of the target, what no path from a source adds to it, and the error where it is known."""
        means = {"target": float(self.target.mean()), "constants": float(self.constants.mean()), "error": self.error}
        return {name: value for name, value in means.items() if value == value}

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """One bar per path, the 64 largest where there are more, averaged over the batch."""
        from unbraid.draw import paths

        means = self.values.mean(1)
        chosen = means.abs().argsort(descending=True)[:_DRAWN]
        return paths(self.lengths[chosen.cpu()].tolist(), means[chosen].tolist(), ax=ax)


def paths_of(
    linear: Linearised,
    masks: Int16[Tensor, "paths blocks"],
    values: Float[Tensor, "paths batch"],
    squares: Float[Tensor, "paths batch"],
    *,
    exact: bool,
) -> Paths:
    """Paths of a linearised run, from the value and the squared norm of the gradient along each, by example."""
    return Paths(
        blocks=counted(linear),
        masks=masks,
        lengths=linear.lengths.of_masks(masks),
        values=values,
        norms=squares.sqrt().mean(1),
        constants=linear.constant,
        target=linear.target,
        linearize="frozen" if linear.frozen else "jacobian",
        exact=exact,
        error=float("nan"),
        summed=linear.examples.summed,
    )


def counted(linear: Linearised) -> tuple[str, ...]:
    """The names of the blocks that are counted, one per column of a mask."""
    return tuple(block.name for block in linear.form.all_blocks if block.index in linear.lengths.columns)


def shown(mask: Int16[Tensor, " blocks"]) -> str:
    """A path as text, one character per block; see `Paths.table`."""
    return "".join({SKIP: "·", NOT_MET: " "}.get(choice) or _digit(choice) for choice in mask.tolist())


def _digit(branch: int) -> str:
    return _DIGITS[branch] if branch < len(_DIGITS) else chr(0x100 + branch)

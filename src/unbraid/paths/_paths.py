import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int16, Int64
from rich import box
from rich.table import Table
from torch import Tensor

from unbraid.form import Result, said_of
from unbraid.graph import SKIP
from unbraid.walk import NOT_MET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_DRAWN = 64
_DIGITS = string.digits + string.ascii_letters


@dataclass(frozen=True, eq=False, repr=False)
class Paths(Result):
    """Single paths from the sources to the target, by the choice that each makes at every block.

    Attributes:
        blocks: the names of the blocks, one a column of `masks`.
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

    def table(self) -> Table:
        """The first hundred paths: choices, length, value averaged over the batch, norm.

        A path has one character per block: a dot for the skip, a digit (from 10 on a letter) for the branch, a blank
        where it does not meet the block.
        """
        table = Table(box=box.SIMPLE_HEAD, caption=self._caption)
        table.caption_justify = "left"
        for column in ("path", "length", "value", "norm"):
            table.add_column(column, justify="left" if column == "path" else "right")
        rows = zip(self.masks[:100], self.lengths, self.values.mean(1), self.norms, strict=False)
        for mask, length, value, norm in rows:
            table.add_row(shown(mask), str(int(length)), f"{value:+.4g}", f"{norm:.4g}")
        return table

    @property
    def _caption(self) -> str:
        return f"{len(self):,} paths; {self.linearize} linearisation{said_of(self.summed)}"

    def rows(self) -> list[dict[str, Any]]:
        """One a path: its choices as text (see `table`), length, value averaged over the batch, and norm."""
        columns = zip(self.masks, self.lengths.tolist(), self.values.mean(1).tolist(), self.norms.tolist(), strict=True)
        return [
            {"path": shown(mask), "length": length, "value": value, "norm": norm}
            for mask, length, value, norm in columns
        ]

    def scalars(self) -> dict[str, float]:
        """The mean of the target, what no path from a source adds to it, and the error where it is known."""
        found = {"target": float(self.target.mean()), "constants": float(self.constants.mean()), "error": self.error}
        return {name: value for name, value in found.items() if value == value}

    def plot(self, *, ax: "Axes | None" = None) -> "Figure":
        """One bar a path, the 64 largest where there are more, averaged over the batch."""
        from unbraid.draw import paths

        means = self.values.mean(1)
        chosen = means.abs().argsort(descending=True)[:_DRAWN]
        return paths(self.lengths[chosen.cpu()].tolist(), means[chosen].tolist(), ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists."""
        return {
            "blocks": list(self.blocks),
            "masks": self.masks.tolist(),
            "lengths": self.lengths.tolist(),
            "values": self.values.tolist(),
            "norms": self.norms.tolist(),
            "constants": self.constants.tolist(),
            "target": self.target.tolist(),
            "linearize": self.linearize,
            "exact": self.exact,
            "error": self.error,
            "summed": self.summed,
        }


def shown(mask: Int16[Tensor, " blocks"]) -> str:
    """A path as text, one character per block; see `Paths.table`."""
    return "".join({SKIP: "·", NOT_MET: " "}.get(choice) or _digit(choice) for choice in mask.tolist())


def _digit(branch: int) -> str:
    return _DIGITS[branch] if branch < len(_DIGITS) else chr(0x100 + branch)

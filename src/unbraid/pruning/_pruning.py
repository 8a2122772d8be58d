"""What a pruning is told by: the smaller model, how it was made, and what it saves.

The smaller model holds copies, so that healing it leaves the original alone.
"""

import io
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rich.console import Console
from torch import nn

from unbraid._figures import Axes, Figure
from unbraid.graph import Removal
from unbraid.results import Result, finite
from unbraid.results.rows import Row, as_rows

How: TypeAlias = Literal["members", "branches", "graph"]

_FLOPS = "FLOPs of the example"
_SAID = {
    "members": "whole members of its lists were taken out",
    "branches": "modules of the branches were replaced by ones that add nothing",
    "graph": "its own code cannot do without the branches: this is the graph of the form as a module",
}


@dataclass(frozen=True, eq=False, repr=False)
class Pruning(Result):
    """A smaller model, how it was made, and what it saves.

    Attributes:
        model: the smaller model, with copies of the parameters that it keeps.
        how: "members": whole members of lists went, the class and its configuration are the model's own; "branches":
            the class is the model's own, and modules in it were replaced by ones that add nothing; "graph": a module
            around the form without the branches.
        removed: the branches that went: blocks, or (block, branch) pairs.
        modules: the paths of the members taken out and of the modules replaced.
        configuration: the entries of the configuration that were changed, one line each.
        parameters: how many numbers the model and the smaller model learn.
        flops: floating point operations of one call on the example, of both, as torch counts them: those of matrix
            products and convolutions.
        error: ‖pruned(x) − form.without(...)(x)‖∞ / ‖form.without(...)(x)‖∞ at the example.
        refused: what was tried before and did not do, with the reason.
    """

    model: nn.Module
    how: How
    removed: tuple[Removal, ...]
    modules: tuple[str, ...]
    configuration: tuple[str, ...]
    parameters: tuple[int, int]
    flops: tuple[int, int]
    error: float
    refused: tuple[str, ...]

    columns = (("", "{what}"), ("before", "{before:,}"), ("after", "{after:,}"), ("left", "{left:s}"))
    entries = ("how", "removed", "modules", "configuration", "parameters", "flops", "error", "refused")

    @property
    def caption(self) -> str:
        """How it was done, how exact the smaller model is, and what was tried before."""
        lines = [
            f"{len(self.removed)} removed; {_SAID[self.how]}; equals form.without(...) to {self.error:.1e}",
            *self.configuration,
            *(f"not {reason}" for reason in self.refused),
        ]
        return "\n".join(lines)

    def rows(self) -> list[Row]:
        """One row for the parameters and one for the operations."""
        before, after = zip(self.parameters, self.flops, strict=True)
        return as_rows({"what": ("parameters", "FLOPs"), "before": before, "after": after})

    def _table_rows(self) -> list[Row]:
        rows = self.rows()
        rows[1]["what"] = _FLOPS
        for row in rows:
            row["left"] = f"{100 * row['after'] / row['before']:.1f} %" if row["before"] else "-"
        return rows

    def scalars(self) -> dict[str, float]:
        """What is left of parameters and operations, as shares, and the error."""
        left = {"parameters left": self.parameters, "FLOPs left": self.flops}
        shares = {name: after / before for name, (before, after) in left.items() if before}
        return finite({**shares, "error": self.error})

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """What is left of parameters and operations, in percent."""
        from unbraid.draw import left

        return left(["parameters", _FLOPS], [self.parameters, self.flops], ax=ax)

    def __repr__(self) -> str:
        before, after = self.parameters
        said = f"{len(self.removed)} removed; {_SAID[self.how]}"
        return f"Pruning({said}; {before:,} -> {after:,} parameters; error {self.error:.1e})"

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=120, markup=False)
        console.print(self.table())
        return str(console.file.getvalue()) if isinstance(console.file, io.StringIO) else ""

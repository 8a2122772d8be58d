import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from unbraid.form import Result, finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

How: TypeAlias = Literal["members", "branches", "graph"]

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
    removed: tuple[int | tuple[int, int], ...]
    modules: tuple[str, ...]
    configuration: tuple[str, ...]
    parameters: tuple[int, int]
    flops: tuple[int, int]
    error: float
    refused: tuple[str, ...]

    def table(self) -> Table:
        """Parameters and operations before and after; how it was done below."""
        table = Table(box=box.SIMPLE_HEAD, caption=_caption(self))
        table.caption_justify = "left"
        for column in ("", "before", "after", "left"):
            table.add_column(column, justify="left" if not column else "right")
        for name, (before, after) in {"parameters": self.parameters, "FLOPs of the example": self.flops}.items():
            table.add_row(name, f"{before:,}", f"{after:,}", f"{100 * after / before:.1f} %" if before else "-")
        return table

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model as plain values."""
        return {
            "how": self.how,
            "removed": [list(item) if isinstance(item, tuple) else item for item in self.removed],
            "modules": list(self.modules),
            "configuration": list(self.configuration),
            "parameters": list(self.parameters),
            "flops": list(self.flops),
            "error": self.error,
            "refused": list(self.refused),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One for the parameters and one for the operations."""
        counted = {"parameters": self.parameters, "FLOPs": self.flops}
        return [{"what": what, "before": before, "after": after} for what, (before, after) in counted.items()]

    def scalars(self) -> dict[str, float]:
        """What is left of parameters and operations, as shares, and the error."""
        left = {"parameters left": self.parameters, "FLOPs left": self.flops}
        shares = {name: after / before for name, (before, after) in left.items() if before}
        return finite({**shares, "error": self.error})

    def plot(self, *, ax: "Axes | None" = None) -> "Figure":
        """What is left of parameters and operations, in percent."""
        from unbraid.draw import left  # matplotlib is imported where a figure is wanted

        return left(["parameters", "FLOPs of the example"], [self.parameters, self.flops], ax=ax)

    def __repr__(self) -> str:
        before, after = self.parameters
        said = f"{len(self.removed)} removed; {_SAID[self.how]}"
        return f"Pruning({said}; {before:,} -> {after:,} parameters; error {self.error:.1e})"

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=120, markup=False)
        console.print(self.table())
        return str(console.file.getvalue()) if isinstance(console.file, io.StringIO) else ""


def _caption(pruning: Pruning) -> str:
    lines = [
        f"{len(pruning.removed)} removed; {_SAID[pruning.how]}; equals form.without(...) to {pruning.error:.1e}",
        *pruning.configuration,
        *(f"not {reason}" for reason in pruning.refused),
    ]
    return "\n".join(lines)

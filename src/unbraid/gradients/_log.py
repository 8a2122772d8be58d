from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from rich import box
from rich.table import Table

from unbraid.form import Log
from unbraid.gradients._diagnose import Diagnosis, diagnose

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@final
@dataclass(eq=False, repr=False)
class DiagnosisLog(Log[Diagnosis]):
    """A diagnosis of a network that is being trained, from time to time; arguments as for `unbraid.form.Log`.

        log = gradients.DiagnosisLog(unbraid.trace(network.eval(), x), batches, every=5, file="signal.jsonl")
        train.fit(network, data, on_epoch=log)        # or, in a loop of one's own, log(step)
        Trainer(callbacks=[log.lightning()])          # or in Lightning, after each epoch of training

    A writer gets the growth of variance, the gradients' ratio, the loudest branch, and the number of findings.
    """

    def take(self) -> Diagnosis:
        """The diagnosis of this moment."""
        return diagnose(self.form, self.batches, loss=self.loss)

    def table(self) -> Table:
        """One row a record."""
        table = Table(box=box.SIMPLE_HEAD)
        for column in ("step", "variance grows", "gradient first / last", "loudest branch / skip", "findings"):
            table.add_column(column, justify="left" if column == "findings" else "right")
        for step, found in self.records:
            numbers = [f"{value:.3g}" for name, value in found.scalars().items() if name != "findings"]
            table.add_row(str(step), *numbers, ", ".join(dict.fromkeys(f.what for f in found.findings)) or "none")
        return table

    def plot(self, *, ax: "Axes | None" = None) -> "Figure":
        """The last record: variance and gradient by depth."""
        return self.records[-1][1].plot(ax=ax)

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from rich import box
from rich.table import Table

from unbraid.form import BlockLike, Log
from unbraid.paths._mean import MeanSpectrum, mean_spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@final
@dataclass(eq=False, repr=False)
class SpectrumLog(Log[MeanSpectrum]):
    """The gradient by path length of a network that is being trained; other arguments as for `unbraid.form.Log`.

        log = paths.SpectrumLog(unbraid.trace(network.eval(), x), batches, every=5, file="spectra.jsonl")
        train.fit(network, data, on_epoch=log)        # or, in a loop of one's own, log(step)
        Trainer(callbacks=[log.lightning()])          # or in Lightning, after each epoch of training

    A writer gets the loss, the mean length and the ends of the effective interval.

    Attributes:
        at: "source", or a block, by index or name.
    """

    at: BlockLike = "source"

    def take(self) -> MeanSpectrum:
        """The spectrum of this moment."""
        return mean_spectrum(self.form, self.batches, loss=self.loss, at=self.at, check=False)

    def table(self) -> Table:
        """One row a record."""
        table = Table(box=box.SIMPLE_HEAD)
        for column in ("step", "loss", "mean length", "95 % of the norm in", "longest path"):
            table.add_column(column, justify="right")
        for step, found in self.records:
            low, high = found.effective
            cells = f"{found.loss:.4g}", f"{found.mean_length:.2f}", f"{low} to {high}", str(len(found.counts) - 1)
            table.add_row(str(step), *cells)
        return table

    def plot(self, *, ax: "Axes | None" = None) -> "Figure":
        """Share by length against time."""
        from unbraid.draw import spectra

        return spectra([step for step, _ in self.records], [found.share.tolist() for _, found in self.records], ax=ax)

"""The gradient by path length of a network that is being trained, from time to time."""

from dataclasses import dataclass
from typing import final

from unbraid._figures import Axes, Figure
from unbraid.discover import BlockLike
from unbraid.paths._mean_spectrum import MeanSpectrum, mean_spectrum
from unbraid.results.rows import Row
from unbraid.sweep import Log


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

    columns = (
        ("step", "{step:d}"),
        ("loss", "{loss:.4g}"),
        ("mean length", "{mean length:.2f}"),
        ("95 % of the norm in", "{95 % from:.0f} to {95 % to:.0f}"),
        ("longest path", "{longest:d}"),
    )

    def take(self) -> MeanSpectrum:
        """The spectrum of this moment."""
        return mean_spectrum(self.form, self.batches, loss=self.loss, at=self.at, check=False)

    def _table_rows(self) -> list[Row]:
        rows = self.rows()
        for row, (_, spectrum) in zip(rows, self.records, strict=True):
            row["longest"] = len(spectrum.counts) - 1
        return rows

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """Share by length against time."""
        from unbraid.draw import spectra

        return spectra(
            [step for step, _ in self.records], [spectrum.share.tolist() for _, spectrum in self.records], ax=ax
        )

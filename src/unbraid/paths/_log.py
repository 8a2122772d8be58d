import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rich import box
from rich.table import Table
from torch import Tensor

from unbraid.form import Batches, ResidualForm, classification_loss
from unbraid.paths._mean import MeanSpectrum, mean_spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@runtime_checkable
class ScalarWriter(Protocol):
    """What takes single numbers: torch.utils.tensorboard.SummaryWriter, for one."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Write one number."""
        ...


@dataclass(eq=False)
class SpectrumLog:
    """The gradient by path length of a network that is being trained, from time to time.

    The form shares its parameters with the model, so each record sees the weights of its moment:

        form = unbraid.trace(network.eval(), x)
        log = paths.SpectrumLog(form, batches, every=5, file="spectra.jsonl")
        train.fit(network, data, on_epoch=log)        # or, in a loop of one's own, log(step)

    Trace the network on the device on which it is trained.

    Attributes:
        form: the traced network, in eval mode.
        batches: a few batches of (inputs, labels), the same at each record.
        every: a record at every so many calls, the first among them.
        loss: a function (output, labels) -> [batch].
        at: "source", or a block's index.
        file: a file to which each record is appended at once, as a line of JSON; an interrupted run keeps them.
        writer: a TensorBoard writer, which gets the loss, the mean length and the ends of the effective interval.
        records: the steps and their spectra so far.
    """

    form: ResidualForm
    batches: Batches
    every: int = 1
    loss: Callable[[Any, Any], Tensor] = classification_loss
    at: int | str = "source"
    file: Path | str | None = None
    writer: ScalarWriter | None = None
    records: list[tuple[int, MeanSpectrum]] = field(default_factory=list)
    calls: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"SpectrumLog: every must be at least 1 call, and {self.every} came.")
        if self.file is not None:
            Path(self.file).open("a").close()  # that it cannot be written is known at once, not after an epoch

    def __call__(self, step: object = None) -> None:
        """Take a record, if it is time.

        Args:
            step: the step's number; anything else, such as an epoch's result, stands for the number of calls so far.
        """
        number = step if isinstance(step, int) else self.calls
        self.calls += 1
        if (self.calls - 1) % self.every == 0:
            found = mean_spectrum(self.form, self.batches, loss=self.loss, at=self.at, check=False)
            self.records.append((number, found))
            self._write(number, found)

    def _write(self, step: int, found: MeanSpectrum) -> None:
        if self.file is not None:
            with Path(self.file).open("a") as lines:
                lines.write(json.dumps({"step": step, **found.to_dict()}) + "\n")
        if self.writer is not None:
            low, high = found.effective
            scalars = {"loss": found.loss, "mean length": found.mean_length, "95 % from": low, "95 % to": high}
            for name, value in scalars.items():
                self.writer.add_scalar(f"unbraid/{name}", float(value), step)

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

    def to_dict(self) -> dict[str, Any]:
        """Every record as plain values."""
        return {"records": [{"step": step, **found.to_dict()} for step, found in self.records]}

    def plot(self) -> "Figure":
        """Share by length against time."""
        from unbraid.draw import spectra

        return spectra([step for step, _ in self.records], [found.share.tolist() for _, found in self.records])

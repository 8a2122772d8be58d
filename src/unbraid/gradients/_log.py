import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rich import box
from rich.table import Table
from torch import Tensor

from unbraid.errors import UnbraidError
from unbraid.form import Batches, ResidualForm, classification_loss
from unbraid.gradients._diagnose import Diagnosis, diagnose

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@runtime_checkable
class ScalarWriter(Protocol):
    """What takes single numbers: torch.utils.tensorboard.SummaryWriter, for one."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Write one number."""
        ...


@dataclass(eq=False)
class DiagnosisLog:
    """A diagnosis of a network that is being trained, from time to time.

    The form shares its parameters with the model, so each record sees the weights of its moment:

        log = gradients.DiagnosisLog(unbraid.trace(network.eval(), x), batches, every=5, file="signal.jsonl")
        train.fit(network, data, on_epoch=log)        # or, in a loop of one's own, log(step)
        Trainer(callbacks=[log.lightning()])          # or in Lightning, after each epoch of training

    Trace the network on the device on which it is trained.

    Attributes:
        form: the traced network, in eval mode.
        batches: a few batches of (inputs, labels), the same at each record.
        every: a record at every so many calls, the first among them.
        loss: a function (output, labels) -> [batch].
        file: a file to which each record is appended at once, as a line of JSON; an interrupted run keeps them.
        writer: a TensorBoard writer, which gets growth of variance, the gradients' ratio, the loudest branch, and the
            number of findings.
        records: the steps and their diagnoses so far.
    """

    form: ResidualForm
    batches: Batches
    every: int = 1
    loss: Callable[[Any, Any], Tensor] = classification_loss
    file: Path | str | None = None
    writer: ScalarWriter | None = None
    records: list[tuple[int, Diagnosis]] = field(default_factory=list)
    calls: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"DiagnosisLog: every must be at least 1 call, and {self.every} came.")
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
            found = diagnose(self.form, self.batches, loss=self.loss)
            self.records.append((number, found))
            self._write(number, found)

    def lightning(self) -> Any:
        """A callback for Lightning's Trainer that takes a record after each epoch of training.

        Raises:
            UnbraidError: Lightning is not installed.
        """
        if util.find_spec("lightning") is None:
            raise UnbraidError("DiagnosisLog.lightning needs the package lightning: pip install lightning")
        from lightning.pytorch.callbacks import Callback

        log = self

        class Follow(Callback):
            def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                log(int(trainer.current_epoch))

        return Follow()

    def _write(self, step: int, found: Diagnosis) -> None:
        if self.file is not None:
            with Path(self.file).open("a") as lines:
                lines.write(json.dumps({"step": step, **_known(found.to_dict())}) + "\n")
        if self.writer is not None:
            for name, value in _scalars(found).items():
                self.writer.add_scalar(f"unbraid/{name}", value, step)

    def table(self) -> Table:
        """One row a record."""
        table = Table(box=box.SIMPLE_HEAD)
        for column in ("step", "variance grows", "gradient first / last", "loudest branch / skip", "findings"):
            table.add_column(column, justify="left" if column == "findings" else "right")
        for step, found in self.records:
            numbers = [f"{value:.3g}" for name, value in _scalars(found).items() if name != "findings"]
            table.add_row(str(step), *numbers, ", ".join(dict.fromkeys(f.what for f in found.findings)) or "none")
        return table

    def to_dict(self) -> dict[str, Any]:
        """Every record as plain values."""
        return {"records": [{"step": step, **found.to_dict()} for step, found in self.records]}

    def plot(self) -> "Figure":
        """The last record: variance and gradient by depth."""
        return self.records[-1][1].plot()


def _scalars(found: Diagnosis) -> dict[str, float]:
    signal = found.signal
    loudest = [ratio for ratio in signal.ratio.tolist() if math.isfinite(ratio)]
    return {
        "variance grows": float(signal.sum.variance[-1] / signal.source.variance[0]),
        "gradient first over last": float(signal.gradient[0] / signal.gradient[-1]),
        "loudest branch over skip": max(loudest, default=math.nan),
        "findings": float(len(found.findings)),
    }


def _known(value: Any) -> Any:
    """JSON has no nan and no infinity."""
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

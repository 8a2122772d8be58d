"""An analysis of a network that is being trained, taken from time to time."""

import json
import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from unbraid.errors import UnbraidError
from unbraid.form import ResidualForm
from unbraid.ranks import world
from unbraid.results import Result, ScalarWriter, classification_loss
from unbraid.sweep._batches import Batches

R = TypeVar("R", bound=Result)


@dataclass(eq=False, repr=False)
class Log(Result, Generic[R]):
    """An analysis of a network that is being trained, from time to time.

    The form shares its parameters with the model, so each record sees the weights of its moment. Trace the network on
    the device on which it is trained.

    Attributes:
        form: the traced network, in eval mode.
        batches: a few batches of (inputs, labels), the same at each record.
        every: a record at every so many calls, the first among them.
        loss: a function (what the model returns, labels) -> [batch].
        file: a file to which each record is appended at once, as a line of JSON; an interrupted run keeps them.
        writer: a TensorBoard writer, which gets the single numbers of each record.
        records: the steps and their results so far.
    """

    form: ResidualForm
    batches: Batches
    every: int = 1
    loss: Callable[[Any, Any], Tensor] = classification_loss
    file: Path | str | None = None
    writer: ScalarWriter | None = None
    records: list[tuple[int, R]] = field(default_factory=list)
    calls: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"{type(self).__name__}: every must be at least 1 call, and {self.every} came.")
        if self.file is not None:
            Path(self.file).open("a").close()  # that it cannot be written is known at once, not after an epoch

    @abstractmethod
    def take(self) -> R:
        """The analysis of this moment."""

    def __call__(self, step: object = None) -> None:
        """Take a record, if it is time.

        Args:
            step: the step's number; anything else, such as an epoch's result, stands for the number of calls so far.
        """
        number = step if isinstance(step, int) else self.calls
        self.calls += 1
        if (self.calls - 1) % self.every == 0:
            result = self.take()
            self.records.append((number, result))
            self._write(number, result)

    def lightning(self) -> Any:
        """A callback for Lightning's Trainer that takes a record after each epoch of training.

        Raises:
            UnbraidError: Lightning is not installed.
        """
        if util.find_spec("lightning") is None:
            raise UnbraidError(f"{type(self).__name__}.lightning needs the package lightning: pip install lightning")
        from lightning.pytorch.callbacks import Callback

        log = self

        class Follow(Callback):
            def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                log(int(trainer.current_epoch))

        return Follow()

    def to_dict(self) -> dict[str, Any]:
        """Every record as plain values."""
        return {"records": [{"step": step, **result.to_dict()} for step, result in self.records]}

    def rows(self) -> list[dict[str, Any]]:
        """One row per record: its step and its single numbers."""
        return [{"step": step, **result.scalars()} for step, result in self.records]

    def scalars(self) -> dict[str, float]:
        """The single numbers of the last record."""
        return self.records[-1][1].scalars() if self.records else {}

    def _write(self, step: int, result: R) -> None:
        if not world().first:
            return  # every rank takes the record, for they share the work; one writes
        if self.file is not None:
            with Path(self.file).open("a") as lines:
                lines.write(json.dumps({"step": step, **_known(result.to_dict())}) + "\n")
        if self.writer is not None:
            result.log(self.writer, step)


def _known(value: Any) -> Any:
    """JSON has no nan and no infinity."""
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

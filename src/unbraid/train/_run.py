"""What came of training a network."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text
from torch import nn

from unbraid._figures import Axes, Figure
from unbraid.results import Result, finite
from unbraid.results.rows import Row, fill
from unbraid.train._recipe import Recipe

if TYPE_CHECKING:
    from unbraid.data import Dataset

__all__ = ["Epoch", "Run"]

_MOST_NUMBERS = 2**32  # of an input, above which nothing could be traced anyway


@dataclass(frozen=True)
class Epoch:
    """One pass over the training part.

    Attributes:
        epoch: its number, counted from 1, so that it says how many are done.
        lr: the learning rate of its steps.
        train_loss: mean cross-entropy in nats, measured on each batch before its step.
        train_error: share answered wrongly in %, measured likewise: the weights move meanwhile.
        test_error: share of the test part answered wrongly after the epoch, in %.
        seconds: wall time of the pass and the test.
    """

    epoch: int
    lr: float
    train_loss: float
    train_error: float
    test_error: float
    seconds: float


@dataclass(frozen=True, eq=False, repr=False)
class Run(Result):
    """A trained network and how it got there.

    Attributes:
        network: the network, in eval mode. Where the run diverged, as it was then, to be looked into; but
            read back from a folder, as it was after the last good epoch.
        data: the name of the data set.
        recipe: how it was trained.
        seed: of the order of examples and of what layers draw.
        history: one entry for each epoch completed.
        diverged: the step, counted from 0 over the whole run, whose loss or weights were first not finite;
            None where all went well.
        folder: where its checkpoint is; None where none was asked for.
        data_facts: of a run that was read from its folder, what it keeps of its data: their sizes, their place, and
            a checksum.
    """

    network: nn.Module
    data: str
    recipe: Recipe
    seed: int
    history: tuple[Epoch, ...]
    diverged: int | None
    folder: Path | None
    data_facts: Mapping[str, Any] = field(default_factory=dict)

    columns = (
        ("epoch", "{epoch:d}"),
        ("learning rate", "{lr:.3g}"),
        ("train loss", "{train_loss:.4f}"),
        ("train error, %", "{train_error:.1f}"),
        ("test error, %", "{test_error:.1f}"),
        ("seconds", "{seconds:.2f}"),
    )

    @property
    def test_error(self) -> float:
        """The test error after the last epoch, in %; nan where the run diverged or has not begun."""
        return self.history[-1].test_error if self.history and self.diverged is None else math.nan

    @property
    def summary(self) -> str:
        """The outcome in one line."""
        if self.diverged is not None:
            return f"diverged at step {self.diverged:,}, after {len(self.history)} epochs"
        if not self.history:
            return "not begun"
        return f"test error {self.test_error:.1f} % after {len(self.history)} epochs"

    @property
    def features(self) -> tuple[int, ...] | None:
        """The shape of one input that it was trained on; None where the folder does not say."""
        sizes = self.data_facts.get("features")
        if not isinstance(sizes, list) or not all(type(size) is int and size > 0 for size in sizes):
            return None
        return tuple(sizes) if math.prod(sizes) <= _MOST_NUMBERS else None

    def dataset(self) -> "Dataset":
        """The data that it was trained on, read again: from where they were, else from this folder by their name.

        Raises:
            DataError: they are not there, or are not the same by their checksum.
        """
        from unbraid.train._data_of_run import read_again  # which reads data sets: a run is told apart from them

        return read_again(self)

    def table(self) -> Table:
        """One row per epoch."""
        title = f"{self.data}, seed {self.seed}: {self.summary}"
        table = Table(title=Text(title))  # as it is: a file's name may hold what rich takes for markup
        return fill(table, self.columns, self.rows())

    def to_dict(self) -> dict[str, Any]:
        """Everything but the network, ready for JSON: None stands where a number is not finite."""
        return {
            "data": self.data,
            "seed": self.seed,
            "recipe": asdict(self.recipe),
            "history": [asdict(epoch) for epoch in self.history],
            "test_error": None if math.isnan(self.test_error) else self.test_error,
            "diverged": self.diverged,
            "folder": None if self.folder is None else str(self.folder),
        }

    def rows(self) -> list[Row]:
        """One row per epoch."""
        return [asdict(epoch) for epoch in self.history]

    def scalars(self) -> dict[str, float]:
        """Test error in %, and the train loss and error of the last epoch."""
        last = asdict(self.history[-1]) if self.history else {}
        return finite({name: last.get(name) for name in ("test_error", "train_error", "train_loss")})

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """Train and test error by epoch, in %."""
        from unbraid.draw import epochs

        train, test = [row.train_error for row in self.history], [row.test_error for row in self.history]
        return epochs(train, test, f"{self.data}: {self.summary}", ax=ax)

    def __repr__(self) -> str:
        return f"Run({self.data!r}, seed {self.seed}: {self.summary})"

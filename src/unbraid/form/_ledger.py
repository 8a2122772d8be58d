"""What came of the batches that are done, in a file, so that a job over a data set that was killed goes on."""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load, save

from unbraid._kept import Kept
from unbraid.ranks import Row, from_first, mark


@dataclass(frozen=True)
class Ledger:
    """The rows of batches that are done, by number and checksum of the batch.

    Attributes:
        rows: those that were there at the beginning, the same on every rank.
        file: where further ones go; None where nothing is kept, or on other ranks than the first.
    """

    rows: dict[tuple[int, int], Row] = field(default_factory=dict)
    file: Kept | None = None

    def of(self, number: int, item: Any) -> Row | None:
        """What came of a batch; None where it is not done."""
        return self.rows.get((number, mark(item))) if self.rows else None

    def add(self, number: int, item: Any, row: Row) -> None:
        """Keep what came of a batch, at one moment."""
        if self.file is not None and (number, mark(item)) not in self.rows:
            packed = base64.b64encode(save({name: value.cpu().contiguous() for name, value in row.items()})).decode()
            self.file.add([({"batch": number, "mark": mark(item)}, {"row": packed})])


@contextmanager
def ledger(path: Path | str | None, job: str, about: Callable[[], object]) -> Iterator[Ledger]:
    """The ledger of a job; without a path an empty one that keeps nothing.

    Args:
        path: the file, made where it is missing.
        job: what is done with each batch, "lesion" say.
        about: what the rows depend on besides the batches: the form and the settings.

    Raises:
        CheckpointError: the file is of another job, form or settings, or cannot be read or written.
    """
    if path is None:
        yield Ledger()
        return
    opened: list[Kept] = []

    def kept() -> list[tuple[int, int, str]]:
        file = Kept(path, job=job, about={"form and settings": mark(about())})
        opened.append(file)
        return [(int(a["batch"]), int(a["mark"]), str(r["row"])) for a, r in file.all()]

    try:
        rows = {(number, seen): load(base64.b64decode(row)) for number, seen, row in from_first(kept)}
        yield Ledger(dict(rows), opened[0] if opened else None)
    finally:
        for file in opened:
            file.close()

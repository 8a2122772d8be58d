"""What came of the batches that are done, in a file, so that a job over a data set that was killed goes on."""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from unbraid._resume_file import ResumeFile
from unbraid.errors import CheckpointError
from unbraid.ranks import Row, fingerprint, from_first


@dataclass(frozen=True)
class FinishedRows:
    """The rows of batches that are done, by number and checksum of the batch.

    Attributes:
        rows: those that were there at the beginning, the same on every rank.
        file: where further ones go; None where nothing is kept, or on other ranks than the first.
    """

    rows: dict[tuple[int, int], Row] = field(default_factory=dict)
    file: ResumeFile | None = None

    def of(self, number: int, item: Any) -> Row | None:
        """What came of a batch; None where it is not done."""
        return self.rows.get((number, fingerprint(item))) if self.rows else None

    def add(self, number: int, item: Any, row: Row) -> None:
        """Keep what came of a batch, at one moment."""
        if self.file is not None and (number, fingerprint(item)) not in self.rows:
            packed = base64.b64encode(save({name: value.cpu().contiguous() for name, value in row.items()})).decode()
            self.file.add([({"batch": number, "mark": fingerprint(item)}, {"row": packed})])


@contextmanager
def finished_rows(path: Path | str | None, job: str, about: Callable[[], object]) -> Iterator[FinishedRows]:
    """The finished rows of a job; without a path none, and none are kept.

    Args:
        path: the file, made where it is missing.
        job: what is done with each batch, "lesion" say.
        about: what the rows depend on besides the batches: the form and the settings.

    Raises:
        CheckpointError: the file is of another job, form or settings, or cannot be read or written.
    """
    if path is None:
        yield FinishedRows()
        return
    opened: list[ResumeFile] = []

    def read() -> list[tuple[int, int, str]]:
        file = ResumeFile(path, job=job, about={"form and settings": fingerprint(about())})
        opened.append(file)
        try:
            return [(int(asked["batch"]), int(asked["mark"]), str(result["row"])) for asked, result in file.all()]
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from error

    try:
        rows = {(number, seen): _row(path, packed) for number, seen, packed in from_first(read)}
        yield FinishedRows(dict(rows), opened[0] if opened else None)
    finally:
        for file in opened:
            file.close()


def _row(path: Path | str, packed: str) -> Row:
    try:
        return load(base64.b64decode(packed, validate=True))
    except (ValueError, SafetensorError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path | str, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: what is kept here is damaged: {error}. Choose another file.")

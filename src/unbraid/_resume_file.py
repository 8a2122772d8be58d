"""Finished pieces of a job in one SQLite file, so that a job that was killed neither repeats nor loses one."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from unbraid._schema import Steps, bounded, differs, require_ordinary
from unbraid.errors import CheckpointError

__all__ = ["Facts", "ResumeFile"]

_OURS = 0x756E6272  # "unbr": SQLite's place for saying whose file this is
_FORMAT = 1  # of the tables; raise it when an older unbraid could no longer read what is written
_TABLES = (
    "CREATE TABLE job (name TEXT NOT NULL, data TEXT NOT NULL)",
    "CREATE TABLE runs (number INTEGER PRIMARY KEY AUTOINCREMENT, asked TEXT NOT NULL UNIQUE, result TEXT NOT NULL,"
    " finished TEXT NOT NULL)",
)
Facts = Mapping[str, Any]


class ResumeFile:
    """The finished pieces of one job, by what was asked for.

    Pieces that are added together are kept together or not at all, at one moment; SQLite's write-ahead log sees to it
    however the process ends.

    Args:
        path: the file, made where it is missing.
        job: what fills it; a file holds one job alone.
        about: what the job is about; a file holds pieces that agree in all of it.

    Raises:
        CheckpointError: where the file is another's, of another job, about something else or of another format, or
            cannot be opened.
    """

    def __init__(self, path: str | Path, *, job: str, about: Facts) -> None:
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise CheckpointError(f"{self.path}: there is no such folder to keep finished runs in.")
        self._steps = Steps(self.path)
        with self._told():
            require_ordinary(self.path)
            # Transactions are begun and ended here alone, not by Python's guesses.
            self._connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            self._open(job, json.dumps(about))
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> "ResumeFile":  # noqa: PYI034  # beartype cannot check Self here
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the log beside it is folded in."""
        self._connection.close()

    def __len__(self) -> int:
        """How many runs are finished."""
        with self._told():
            return int(self._connection.execute("SELECT count(*) FROM runs").fetchone()[0])

    def result(self, asked: Facts) -> dict[str, Any] | None:
        """What came of the run that was asked for; None where it is not finished."""
        with self._told():
            row = self._connection.execute("SELECT result FROM runs WHERE asked = ?", (_key(asked),)).fetchone()
        return None if row is None else self._read(row[0])

    def all(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Everything that is finished, in the order in which it was: what was asked for, and what came of it."""
        with self._told():
            rows = self._connection.execute("SELECT asked, result FROM runs ORDER BY number").fetchall()
        return [(self._read(asked), self._read(result)) for asked, result in rows]

    def add(self, runs: Sequence[tuple[Facts, Facts]]) -> None:
        """Keep finished runs: what was asked for, and what came of it. All at one moment.

        Raises:
            CheckpointError: where one of them is there already, or the file cannot be written.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [(_key(asked), json.dumps(result, allow_nan=False), now) for asked, result in runs]
        with self._told(len(rows)), self._transaction():
            self._connection.executemany("INSERT INTO runs (asked, result, finished) VALUES (?, ?, ?)", rows)

    def _open(self, job: str, about: str) -> None:
        with self._told():
            bounded(self._connection, self._steps)
            if self._empty():
                # A power cut must not take back what was said to be kept.
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._make(job, about)
            self._connection.execute("PRAGMA synchronous = FULL")
            owner, version = self._pragma("application_id"), self._pragma("user_version")
            if owner != _OURS:
                raise CheckpointError(f"{self.path}: this SQLite file is not unbraid's; choose another file.")
            if version != _FORMAT:
                raise CheckpointError(
                    f"{self.path}: this unbraid keeps runs in format {_FORMAT}; this file is of format {version}. "
                    "Choose another file."
                )
            if odd := differs(self._connection, _TABLES):
                raise CheckpointError(
                    f"{self.path}: this file was changed by something else than unbraid: in its schema {odd} is not "
                    "what unbraid makes, and could do anything when it is used. Choose another file."
                )
            kept = self._connection.execute("SELECT name, data FROM job").fetchone() or (None, "{}")
        self._check("job", kept[0], job)
        if kept[1] != about:
            was, now = self._read(kept[1]), json.loads(about)
            key = next((key for key in now if was.get(key) != now[key]), "name")
            self._check(key, was.get(key), now[key])

    def _read(self, text: object) -> dict[str, Any]:
        try:
            facts = json.loads(text)  # type: ignore[arg-type]  # SQLite keeps any type in any column
            if isinstance(facts, dict):
                return facts
        except (ValueError, TypeError, RecursionError):
            pass
        raise CheckpointError(f"{self.path}: what is kept here is damaged: {str(text)[:40]!r}. Choose another file.")

    def _empty(self) -> bool:
        return (
            self._pragma("application_id") == 0
            and not self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        )

    def _make(self, job: str, about: str) -> None:
        with self._transaction():
            if self._empty():  # still, now that the file is locked: another process may have been faster
                for table in _TABLES:
                    self._connection.execute(table)
                self._connection.execute("INSERT INTO job VALUES (?, ?)", (job, about))
                self._connection.execute(f"PRAGMA application_id = {_OURS}")
                self._connection.execute(f"PRAGMA user_version = {_FORMAT}")

    def _check(self, what: str, kept: object, asked: object) -> None:
        if kept != asked:
            raise CheckpointError(
                f"{self.path}: this file keeps the runs of another job: its {what} is {_short(kept)}, and "
                f"{_short(asked)} is asked for. Choose another file."
            )

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk ends it by itself
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _told(self, rows: int = 0) -> Iterator[None]:
        """Say in our words what SQLite cannot do, and bound what it does: there is room for as many further rows."""
        self._steps.begin(rows)
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise CheckpointError(
                f"{self.path}: a run is there already: another process fills the same file. Let one of them end."
            ) from error
        except (sqlite3.Error, OSError) as error:
            raise CheckpointError(
                f"{self.path}: finished runs cannot be kept here: {error}. What was kept before is untouched: "
                "make room or choose another file, and start again."
            ) from error


def _key(asked: Facts) -> str:
    return json.dumps(asked, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _short(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 40 else f"{text[:13]}…{text[-1]}"

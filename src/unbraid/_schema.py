"""An SQLite file looked at before it is used: it may be anybody's, and a schema can hold programs.

A view stands for a table and may never end, a trigger changes what was written, an expression takes any memory. So the
schema must be ours to the letter, and what is read has bounds in bytes and in steps.
"""

import errno
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import final

__all__ = ["Steps", "bounded", "differs", "require_ordinary"]

_LONGEST = 2**28  # bytes of one text or one row
_STEPS, _STEPS_A_BYTE = 10_000_000, 4  # of SQLite's machine: a row of 20 bytes takes about 20
_STEPS_A_ROW = 1000  # that is added
_EVERY = 100_000  # steps, after which they are counted


@final
class Steps:
    """Steps that SQLite takes, and how many are enough for a file of this size.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._taken, self._most = path, 0, _STEPS

    def begin(self, rows: int = 0) -> None:
        """Count anew, with room for as many further rows."""
        sizes = (os.stat(path).st_size for path in _files(self._path) if path.is_file())
        self._taken, self._most = 0, _STEPS + _STEPS_A_BYTE * sum(sizes) + _STEPS_A_ROW * rows

    def enough(self) -> bool:
        """Called by SQLite; True ends the statement."""
        self._taken += _EVERY
        return self._taken > self._most


def require_ordinary(path: Path) -> None:
    """The file and those that SQLite keeps beside it must be ordinary ones, where they are there.

    A pipe would be waited for, and through a link beside it SQLite would write over what the link shows.

    Raises:
        OSError: one is not.
    """
    for file in _files(path.resolve()):
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise OSError(errno.EINVAL, "unable to open database file: this is no ordinary file", str(file))


def bounded(connection: sqlite3.Connection, steps: Steps) -> None:
    """Bound what a statement may take, before anything of the file is read."""
    for limit, most in (
        (sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST),
        (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 100_000),
        (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 20),
        (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 3),
        (sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 1),
        (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
    ):
        connection.setlimit(limit, most)
    connection.set_progress_handler(steps.enough, _EVERY)
    for said in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "recursive_triggers = OFF"):
        connection.execute(f"PRAGMA {said}")


def differs(connection: sqlite3.Connection, tables: Sequence[str]) -> str | None:
    """The first entry of the schema that these tables do not have, or have and it lacks; None where all is equal."""
    with closing(sqlite3.connect(":memory:")) as ours:
        for table in tables:
            ours.execute(table)
        wanted, existing = _entries(ours), _entries(connection)
    odd = sorted(wanted.items() ^ existing.items(), key=lambda entry: (entry[0] in wanted, entry))
    return None if not odd else " ".join(odd[0][0])


def _entries(connection: sqlite3.Connection) -> dict[tuple[str, str], tuple[object, ...]]:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT 100").fetchall()
    return {(str(kind)[:40], str(name)[:40]): tuple(rest) for kind, name, *rest in rows}


def _files(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]

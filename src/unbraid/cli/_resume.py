"""Where a command keeps what is done, so that the same command goes on after a kill."""

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from unbraid.cli._console import tell
from unbraid.errors import CheckpointError

__all__ = ["with_resume_file"]

T = TypeVar("T")


def with_resume_file(verb: str, wanted: Path | None, asked: object, work: Callable[[Path | None], T]) -> T:
    """Work with a file for finished batches: the one that was asked for, or one in the user's cache.

    The cached file is named by what was asked for and by the folder. It is the user's alone, goes when the work is
    done, and stays where it does not come to its end. Where there is no place for it, the command says so and works
    without.

    Args:
        verb: of the command.
        wanted: the file that the user named, if any; it stays.
        asked: the command's arguments.
        work: takes the file.
    """
    if wanted is not None:
        return work(wanted)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unbraid"
    said = f"{Path.cwd()} {asked}"
    path = folder / f"{verb}-{zlib.crc32(said.encode()):08x}.sqlite"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        tell(f"unbraid {verb}: finished batches are not kept: {error.strerror}: {folder} (--resume FILE names a place)")
        return work(None)
    try:
        done = work(path)
    except CheckpointError:  # the same command, but the model or the data are not what they were: begin anew
        _remove(path)
        done = work(path)
    _remove(path)
    return done


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)

"""A new folder that a command fills over some time: a kill leaves a note of what for, and the same command goes on."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unbraid import _folder
from unbraid._claim import claimed
from unbraid.errors import CheckpointError

__all__ = ["filling", "require_new"]

_WORK, _NOTE = ".unfinished", "asked.json"
_LONGEST = 2**20  # bytes of the note


def require_new(folder: Path | None) -> None:
    """Refuse a folder in which there is something, but for what a command of ours left unfinished.

    Raises:
        ValueError: there is something.
    """
    if folder is None or not folder.exists():
        return
    work = folder / _WORK
    if not work.is_symlink() and _folder.exists(work):
        return
    if not folder.is_dir() or work.is_symlink() or any(path.name != _WORK for path in folder.iterdir()):
        raise ValueError(f'--save takes a new folder; there is something at "{folder}".')


@contextmanager
def filling(folder: Path | None, asked: Mapping[str, Any]) -> Iterator[Path | None]:
    """Hold a folder while it is filled; a place inside for work that is thrown away in the end.

    The place stays where the work is cut short, so that it can go on from there, and goes where the input was at fault.

    Args:
        folder: as `require_new` lets pass; None yields None.
        asked: what it is filled by; only the same goes on.

    Raises:
        ValueError: it is being filled by something else.
        CheckpointError: another process fills it, or it cannot be written.
    """
    require_new(folder)
    if folder is None:
        yield None
        return
    work = folder / _WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written: {error.strerror}. Choose another folder.") from error
    with claimed(work, "writing into"):
        told: dict[str, Any] = json.loads(json.dumps(asked))
        if _folder.exists(work):
            _check_same(folder, _folder.read(work, _note, holds=_NOTE), told)
        else:
            _folder.write(work, {_NOTE: lambda path: path.write_text(json.dumps(told), encoding="utf-8")})
        try:
            yield work
        except ValueError:
            _remove(work)
            if not any(folder.iterdir()):
                folder.rmdir()
            raise
        _remove(work)


def _note(generation: _folder.Generation) -> Any:
    try:
        return json.loads(generation.open(_NOTE).read(most=_LONGEST).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{generation.folder / _NOTE} is damaged: {error}. Choose another folder.") from error


def _check_same(folder: Path, was: Any, now: Mapping[str, Any]) -> None:
    key = next((key for key in now if not isinstance(was, dict) or was.get(key) != now[key]), None)
    if key is not None:
        there = was.get(key) if isinstance(was, dict) else was
        raise ValueError(
            f'"{folder}" was being filled by another command when that ended: its {key} is {str(there)[:80]}, and '
            f"{str(now[key])[:80]} is asked for. Give the same command, which goes on, or another folder."
        )


def _remove(work: Path) -> None:
    """The note last: while it is there, the same command may go on, and no other."""
    for path in work.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
    for name in (_NOTE, _folder.SUMS):
        (work / name).unlink(missing_ok=True)
    work.rmdir()

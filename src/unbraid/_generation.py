"""The files of a folder as they were committed at one moment.

While others write (`_folder`), a reader may meet one file of a generation and another of the next. So it opens all that
SHA256SUMS lists, checks what it has open, and begins anew where that does not fit and another SHA256SUMS lies there by
now. What it holds open stays as it is, and may be read for as long as it is held.
"""

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar, final

from unbraid._openfile import OpenFile
from unbraid.errors import CheckpointError

__all__ = ["COMMITTED", "SUMS", "Generation", "exists", "find", "listed", "read"]

T = TypeVar("T")

SUMS = "SHA256SUMS"  # as `sha256sum --check` reads it
COMMITTED = ".committed"  # files there stand for those of the same name beside it
_LONGEST = 2**20  # bytes of SHA256SUMS: 10,000 files
_TRIES = 1000  # a generation that is replaced is met by chance; so often only where somebody does nothing else


@final
class Generation:
    """The files of a folder that were committed at one moment, open.

    Attributes:
        folder: where they lie.
        sums: the checksum of each by its name; None where the folder has no SHA256SUMS, and nothing is checked.
    """

    def __init__(self, folder: Path, sums: Mapping[str, str] | None) -> None:
        self.folder, self.sums = folder, sums
        # All at once, and what takes long, the checking, after that: meanwhile they may be replaced.
        self._files = {} if sums is None else {name: _attempt(folder, name) for name in sums}
        self._checked = set[str]()

    def has(self, name: str) -> bool:
        """Whether there is something of this name; why it cannot be opened, `open` says."""
        return not isinstance(self._file_or_error(name), FileNotFoundError)

    def open(self, name: str) -> OpenFile:
        """A file of this generation, its content checked.

        Raises:
            CheckpointError: it is missing, not listed, or damaged.
        """
        if self.sums is not None and name not in self.sums:
            raise CheckpointError(f"{self.folder}: the checkpoint is incomplete: {name} is not listed in {SUMS}")
        file = self._file_or_error(name)
        if isinstance(file, FileNotFoundError):
            raise CheckpointError(f"{self.folder}: the checkpoint is incomplete: {name} is missing")
        if isinstance(file, OSError):
            raise _unreadable(self.folder, file)
        if self.sums is not None and name not in self._checked:
            digest = file.sha256()
            if digest != self.sums[name]:
                raise CheckpointError(
                    f"{self.folder}: {name} is damaged: {file.size:,} bytes with SHA-256 {digest[:12]}…, but {SUMS} "
                    f"says {self.sums[name][:12]}… Copy the folder again, or write it anew."
                )
            self._checked.add(name)
        return file

    def _file_or_error(self, name: str) -> OpenFile | OSError:
        if self.sums is None:
            return _attempt(self.folder, name)
        return self._files.get(name, FileNotFoundError(name))


def find(folder: Path, name: str) -> Path:
    """Where a file of the folder lies: beside the others, or committed and not yet moved there."""
    committed = folder / COMMITTED / name
    return committed if committed.exists() else folder / name


def exists(folder: Path) -> bool:
    """Whether the folder holds files that `write` has committed."""
    return find(folder, SUMS).is_file()


def listed(folder: Path) -> dict[str, str]:
    """The files that `write` has committed there, each with its checksum; none where there are none.

    Raises:
        OSError: the folder cannot be read.
    """
    return _sums_in(_open(folder, SUMS)) if exists(folder) else {}


def read(folder: Path, use: Callable[[Generation], T], *, holds: str, unlisted: bool = False) -> T:
    """What a function makes of the files of one generation; it is called again where another one took their place.

    Args:
        folder: what `write` wrote.
        use: opens the files that it needs, and may keep them.
        holds: what belongs there, for the message.
        unlisted: read a folder without SHA256SUMS, too: its files are not checked.

    Raises:
        CheckpointError: there is no such folder, or nothing in it that `write` wrote, or a file is missing or damaged.
    """
    if not folder.is_dir():
        what = "this is a file, and a checkpoint is a folder" if folder.exists() else "there is no such folder"
        raise CheckpointError(f"{folder}: {what}")
    for _ in range(_TRIES):
        sums = _attempt(folder, SUMS)
        if isinstance(sums, OSError) and not isinstance(sums, FileNotFoundError):
            raise _unreadable(folder, sums)
        try:
            if isinstance(sums, OpenFile):
                return use(Generation(folder, _sums_in(sums)))
            if unlisted:
                return use(Generation(folder, None))
            raise CheckpointError(f"{folder}: no checkpoint here: {SUMS} is missing. A checkpoint holds {holds}.")
        except (CheckpointError, OSError) as error:
            if not _replaced(folder, sums):
                raise error if isinstance(error, CheckpointError) else _unreadable(folder, error) from error
    raise CheckpointError(
        f"{folder}: other processes replaced its files {_TRIES:,} times while it was read. Wait until they have ended."
    )


def _replaced(folder: Path, sums: OpenFile | OSError) -> bool:
    """Whether another generation lies there by now.

    Held open, SHA256SUMS keeps its number in the file system: no other one, of the same content even, passes for it.
    """
    now = find(folder, SUMS)
    return not sums.lies_at(now) if isinstance(sums, OpenFile) else now.is_file()


def _open(folder: Path, name: str) -> OpenFile:
    try:
        return OpenFile(folder / COMMITTED / name)
    except (FileNotFoundError, NotADirectoryError):  # also where it was moved into place just now
        return OpenFile(folder / name)


def _attempt(folder: Path, name: str) -> OpenFile | OSError:
    """The file, or why it cannot be opened: it may be of another generation than what asks for it."""
    try:
        return _open(folder, name)
    except OSError as error:
        return error


def _unreadable(folder: Path, error: OSError) -> CheckpointError:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return CheckpointError(
            f"{folder}: {error.strerror}. Streamed forms hold their files open: raise the limit (ulimit -n), or let go "
            "of other forms."
        )
    name = f"{Path(error.filename).name}: " if error.filename else ""
    return CheckpointError(f"{folder}: the checkpoint cannot be read: {name}{error.strerror or error}")


def _sums_in(file: OpenFile) -> dict[str, str]:
    lines = file.read(most=_LONGEST).decode(errors="replace").splitlines()
    sums = {}
    for line in lines:
        digest, _, name = line.partition("  ")
        if _lies_here(name):
            sums[name] = digest
    return sums


def _lies_here(name: str) -> bool:
    """Whether it is the name of a file in this folder, whoever wrote it down."""
    return Path(name).name == name and name not in ("", "..") and "\0" not in name

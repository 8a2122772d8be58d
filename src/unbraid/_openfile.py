"""A file held open, so that one content is checked and read whatever takes its name meanwhile.

Files are replaced by renaming others over them. An open descriptor keeps showing the old content; a path does not.
"""

import errno
import hashlib
import os
import stat
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, final

__all__ = ["OpenFile"]

_PIECE = 2**22  # bytes read at a time where a file is not read as a whole
_seeking = threading.Lock()


@final
class OpenFile:
    """An ordinary file, opened for reading; it is closed with the object.

    Attributes:
        path: where it was found.
        size: in bytes.

    Raises:
        OSError: there is no such file, or it is no ordinary one: to open a pipe may wait for ever, and to read a
            device may do anything.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _require_ordinary(os.stat(path), path)
        flags = os.O_RDONLY if os.name != "posix" else os.O_RDONLY | os.O_NONBLOCK  # it may be swapped right now
        self._descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._descriptor)
        facts = os.fstat(self._descriptor)
        _require_ordinary(facts, path)
        self.size = facts.st_size
        self._stamp = _stamp(facts)

    @property
    def unchanged(self) -> bool:
        """Whether the content is that of the beginning, by the file's size and time."""
        return _stamp(os.fstat(self._descriptor)) == self._stamp

    def lies_at(self, path: Path) -> bool:
        """Whether this very file, not an equal one, lies at the path."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self._descriptor))
        except OSError:
            return False

    def read(self, *, most: int) -> bytes:
        """The whole content.

        Raises:
            OSError: it has more bytes than that.
        """
        if self.size > most:
            raise OSError(errno.EFBIG, f"it has {self.size:,} bytes, and at most {most:,} belong there", str(self.path))
        return self.head(self.size)

    def head(self, count: int) -> bytes:
        """The first bytes, as many as there are."""
        content = bytearray(min(count, self.size))
        self.fill(memoryview(content), 0)
        return bytes(content)

    def stream(self) -> BinaryIO:
        """The file as libraries take it, from its beginning; the caller closes it. One at a time."""
        stream = os.fdopen(os.dup(self._descriptor), "rb")
        stream.seek(0)
        return stream

    def fill(self, buffer: memoryview, offset: int) -> None:
        """Read what lies at an offset; every caller and thread at its own.

        Raises:
            OSError: the file ends before the buffer is full.
        """
        while buffer:
            count = self._fill_some(buffer[: 2**30], offset)  # of two GB at most at a time
            if not count:
                raise OSError(errno.EIO, "it ends too early", str(self.path))
            buffer, offset = buffer[count:], offset + count

    def pieces(self) -> Iterator[memoryview]:
        """The content, piece by piece."""
        piece = bytearray(min(_PIECE, self.size))
        for offset in range(0, self.size, _PIECE):
            part = memoryview(piece)[: self.size - offset]
            self.fill(part, offset)
            yield part

    def sha256(self) -> str:
        """The checksum of the content."""
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()

    def _fill_some(self, buffer: memoryview, offset: int) -> int:
        if os.name == "posix":
            return os.preadv(self._descriptor, [buffer], offset)
        with _seeking:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            part = os.read(self._descriptor, min(len(buffer), _PIECE))
        buffer[: len(part)] = part
        return len(part)


def _require_ordinary(facts: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "this is no ordinary file", str(path))


def _stamp(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_size, facts.st_mtime_ns

"""Memory that is freed and soon wanted again."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM, _MAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_ALL = 2**31 - 1
_OWN = 32 << 20  # bytes: where glibc's own adjustment of M_MMAP_THRESHOLD ends


@contextmanager
def memory_kept(*, when: bool = True) -> Iterator[None]:
    """Let the C library keep what is freed in between, however large, and give it back to the system at the end.

    glibc returns large blocks as soon as they are freed. What stacks of variants free is taken again at once, and each
    new page costs a fault and is filled with zeros first: for tensors of some 10 MB that takes longer than to compute
    them. Another C library, and settings that the user has made in the environment, are left alone.

    The settings are the process's: of several sweeps at once the first to end ends it for all, which costs the others
    time alone.

    Args:
        when: whether to do so.
    """
    library = _glibc() if when else None
    if library is None:
        yield
        return
    if not library.mallopt(_MAP, _ALL):
        library.mallopt(_MAP, _OWN)  # the most that older versions take
    library.mallopt(_TRIM, _ALL)
    try:
        yield
    finally:
        library.mallopt(_MAP, _OWN)
        library.mallopt(_TRIM, 2 * _OWN)
        library.malloc_trim(2 * _OWN)  # all but as much as it keeps by itself


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return None
    library = ctypes.CDLL(None)
    try:
        return library if library.mallopt and library.malloc_trim else None
    except AttributeError:  # not glibc
        return None

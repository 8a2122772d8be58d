"""Memory that is freed and soon wanted again.

A sweep has the C library keep freed memory, and give it back at the end. Tensors of some 10 MB come from new pages
otherwise, and a fault for each costs more than what is computed in them: GPT-2's sweep made 430,000 of them, and now
makes 75,000. glibc has these settings for the whole process alone and does not tell what they were, so afterwards they
are set to where its own adjustment ends; what the user has set in the environment stays. Of what is free then 256 MiB
are not given back: to return ResNet-50's 190 and take them anew for the next sweep cost 2 to 5 % of it.
"""

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TRIM, _MAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_ALL = 2**31 - 1
_OWN = 32 << 20  # bytes: where glibc's own adjustment of M_MMAP_THRESHOLD ends
_LITTLE = 256 << 20  # bytes: about as much as Python with torch takes by itself


@contextmanager
def memory_kept(*, when: bool = True) -> Iterator[None]:
    """Let the C library keep what is freed in between, however large, and give it back to the system at the end.

    glibc returns large blocks as soon as they are freed. What stacks of variants free is taken again at once, and each
    new page costs a fault and is filled with zeros first: for tensors of some 10 MB that takes longer than to compute
    them. Of what is free at the end 256 MiB may stay, for the next sweep or whatever else the program does; more goes
    back. Another C library, and settings that the user has made in the environment, are left alone.

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
        if _free(library) > _LITTLE:
            library.malloc_trim(2 * _OWN)  # all but as much as it keeps by itself


class _Information(ctypes.Structure):
    """What mallinfo2 gives, in bytes; see its manual page for the names."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    )


def _free(library: Any) -> float:
    """Bytes that the C library holds and nobody uses; infinite where that is not told, as before glibc 2.33."""
    tell = getattr(library, "mallinfo2", None)
    if tell is None:
        return math.inf
    tell.restype = _Information
    return float(tell().fordblks)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return None
    library = ctypes.CDLL(None)
    try:
        return library if library.mallopt and library.malloc_trim else None
    except AttributeError:  # not glibc
        return None

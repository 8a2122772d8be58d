"""One process at a time writes into a folder."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unbraid.errors import CheckpointError

__all__ = ["claimed"]


@contextmanager
def claimed(folder: Path, doing: str, *, patience: float = 0.0) -> Iterator[None]:
    """Hold a folder for writing; the system lets go of it when the process ends, however it ends.

    Nobody holds it where folders cannot be locked: Windows, some network file systems.

    Args:
        folder: made where it is missing.
        doing: what another process does there, for the message: "training into".
        patience: seconds to wait for a process that holds it.

    Raises:
        CheckpointError: another process holds it.
    """
    descriptor = _held(folder, doing, patience)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _held(folder: Path, doing: str, patience: float) -> int | None:
    if os.name != "posix":
        return None
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # what is wrong with the folder is said when it is written
        return None
    end = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError as error:
                if time.monotonic() >= end:
                    raise CheckpointError(
                        f"{folder}: another process is {doing} this folder right now. Wait until it ends, or choose "
                        "another folder."
                    ) from error
            time.sleep(random.uniform(0.001, 0.02))  # unequal, so that of two that wait each has its turn
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise

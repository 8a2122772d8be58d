"""One process at a time writes a run into a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unbraid.errors import CheckpointError
from unbraid.ranks import from_first

__all__ = ["claimed"]


@contextmanager
def claimed(folder: Path | None) -> Iterator[None]:
    """Hold a folder until the run ends; the system lets go of it when the process ends, however it ends.

    Of several ranks the first holds it. Nobody does where folders cannot be locked: Windows, some network file systems.

    Raises:
        CheckpointError: on every rank, where another run is being written there.
    """
    held: list[int] = []
    if folder is not None:
        from_first(lambda: held.extend(_held(folder)))
    try:
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def _held(folder: Path) -> list[int]:
    if os.name != "posix":
        return []
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # what is wrong with the folder is said when the checkpoint is written
        return []
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            return []
        raise CheckpointError(
            f"{folder}: another process is training into this folder right now. Wait until it ends, or choose "
            "another folder."
        ) from error
    return [descriptor]

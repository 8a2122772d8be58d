"""One process at a time writes a run into a folder."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from unbraid import _claim
from unbraid.ranks import from_first

__all__ = ["claimed"]


@contextmanager
def claimed(folder: Path | None) -> Iterator[None]:
    """Hold a folder until the run ends; the system lets go of it when the process ends, however it ends.

    Of several ranks the first holds it. Nobody does where folders cannot be locked: Windows, some network file systems.

    Raises:
        CheckpointError: on every rank, where another run is being written there.
    """
    with ExitStack() as held:
        if folder is not None:
            from_first(lambda: held.enter_context(_claim.claimed(folder, "training into")))
        yield

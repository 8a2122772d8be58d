"""Waiting for what others do: for the event itself, never for a time that a slower machine would not keep."""

import time
from collections.abc import Callable
from subprocess import Popen
from typing import Any

HANGS = 900  # seconds that only what hangs takes, on any machine


def until(event: Callable[[], object], process: "Popen[Any] | None" = None) -> None:
    """Return as soon as the event has come.

    Args:
        event: whether it has.
        process: who brings it about; where it ends without, nothing will come any more.
    """
    end = time.monotonic() + HANGS
    while not event():
        ended = process is not None and process.poll() is not None
        assert not ended or event(), f"ended with {process.returncode}: {process.communicate()}"
        assert time.monotonic() < end, "it hangs"
        time.sleep(0.02)

"""Whose turn it is to trace, in a process of several threads, and to be forked."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from threading import Lock, get_ident

__all__ = ["turn"]


class Turns:
    """A lock that the thread which has it may take again, and that goes to whoever waits before it comes back.

    Torch's exporter and its recording of operators change modules and functions of torch for the whole process: two
    traces at once would each record what the other computes, and a process forked meanwhile would keep half of a trace
    for ever, or the lock of a module that another thread imports. So a fork takes its turn as well, and a thread that
    traces without a pause cannot keep it waiting.
    """

    def __init__(self) -> None:
        self._queue, self._lock = Lock(), Lock()
        self._owner, self._depth = 0, 0

    def take(self) -> None:
        """Wait for the turn."""
        if self._owner != get_ident():
            with self._queue:  # one waits at the lock, the others here: who had the lock comes after it
                self._lock.acquire()
            self._owner = get_ident()
        self._depth += 1

    def hand_on(self) -> None:
        """End it."""
        self._depth -= 1
        if not self._depth:
            self._owner = 0
            self._lock.release()

    def forked(self) -> None:
        """In a new process, whose only thread has the turn: threads that waited are not there."""
        self._queue = Lock()
        self._owner = get_ident()
        self.hand_on()


# The exporter imports filelock, which has hooks at a fork of its own, and waits in them for threads that use a lock.
# Hooks run in the reverse order of their registration: were they registered after ours, a fork would first close
# filelock's gate and then wait for the turn of a thread that waits at that gate.
with suppress(ImportError):
    import_module("filelock")

_TURNS = Turns()
os.register_at_fork(before=_TURNS.take, after_in_parent=_TURNS.hand_on, after_in_child=_TURNS.forked)


@contextmanager
def turn() -> Iterator[None]:
    """Hold off other threads that trace, or import what tracing needs, and forks of the process."""
    _TURNS.take()
    try:
        yield
    finally:
        _TURNS.hand_on()

"""One trace at a time, whichever thread asks, and nothing left of it in torch's own memory."""

import linecache
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, get_ident

from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.fx.graph_module import _loader

from unbraid._interrupt import held_back


class Turns:
    """A lock that the thread which has it may take again, and that goes to whoever waits before it comes back.

    Torch's exporter and its recording of operators change modules and functions of torch for the whole process: two
    traces at once would each record what the other computes, and a process forked meanwhile would keep half of a trace
    for ever. So a fork takes its turn as well, and a thread that traces without a pause cannot keep it waiting.
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


_TURNS = Turns()
os.register_at_fork(before=_TURNS.take, after_in_parent=_TURNS.hand_on, after_in_child=_TURNS.forked)


@contextmanager
def _forgotten() -> Iterator[None]:
    before = set(_loader.eval_cache)
    try:
        yield
    finally:
        ShapeEnv.get_implications.cache_clear()
        for name in _loader.eval_cache.keys() - before:
            del _loader.eval_cache[name]
            linecache.cache.pop(name, None)


@contextmanager
def alone() -> Iterator[None]:
    """Hold off other threads; afterwards let torch forget sizes and generated code that it would keep for ever."""
    _TURNS.take()
    try:
        with held_back(), _forgotten():
            yield
    finally:
        _TURNS.hand_on()

"""A bar with the time left for work of more than two seconds, in a terminal or a notebook, and gone when it is done."""

import html
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unbraid._turns import turn

__all__ = ["Step", "how_many", "progress"]

_PATIENCE = 2.0  # seconds without a bar
_BETWEEN = 0.2  # seconds from one drawing in a notebook to the next

# One bar at a time: what is called by something that shows one stays silent.
_busy: ContextVar[bool] = ContextVar("unbraid shows a bar", default=False)


class Step(Protocol):
    """Moves a bar by so many steps, and may change what it says."""

    def __call__(self, count: int = 1, /, text: str | None = None) -> None:
        """Move the bar."""
        ...


@contextmanager
def progress(text: str, total: int | None) -> Iterator[Step]:
    """A bar on stderr, or in a notebook below the cell.

    Nothing is drawn in the first two seconds, where there is neither a terminal nor a notebook, inside of another bar,
    in a process that another one has started, or on another rank than the first.

    Args:
        text: what is being done.
        total: the number of steps; None where it is not known.

    Yields:
        What takes a step.
    """
    with turn():  # a process forked while another thread imports would keep the lock of the module for ever
        from unbraid.ranks import world  # imports torch, which the command's help does without

    silent = _busy.get() or multiprocessing.parent_process() is not None or not world().first
    bar = None if silent else _bar(text, total)
    if bar is None:
        yield _nothing
        return
    _busy.set(True)
    try:
        yield bar.step
    finally:
        _busy.set(False)
        bar.close()


def how_many(items: object) -> int | None:
    """How many there are; None for what does not know, such as an iterator."""
    try:
        return len(items) if isinstance(items, Sized) else None
    except TypeError:  # a DataLoader over a stream has a length that it refuses to tell
        return None


class _Terminal:
    """A bar that a timer shows, so that it comes even where the first step is long."""

    def __init__(self, console: Console, text: str, total: int | None) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        # What is printed meanwhile on stdout may be a result on its way to a file.
        self._bar = Progress(*columns, console=console, transient=True, redirect_stdout=False)
        self._task = self._bar.add_task(text, total=total)
        self._lock, self._over, self._shown = threading.Lock(), False, False
        self._timer = threading.Timer(_PATIENCE, self._show)
        self._timer.daemon = True
        self._timer.start()

    def step(self, count: int = 1, /, text: str | None = None) -> None:
        self._bar.update(self._task, advance=count, description=text)

    def close(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._over = True
            if self._shown:
                self._bar.stop()

    def _show(self) -> None:
        with self._lock:
            if not self._over:
                self._bar.start()
                self._shown = True


class _Notebook:
    """A bar in HTML; rich's own needs ipywidgets and leaves an empty line behind."""

    def __init__(self, text: str, total: int | None) -> None:
        self._text, self._total, self._done = text, total, 0
        self._start = time.monotonic()
        self._next = self._start + _PATIENCE
        self._handle: Any = None

    def step(self, count: int = 1, /, text: str | None = None) -> None:
        self._done += count
        self._text = self._text if text is None else text
        if (now := time.monotonic()) >= self._next:
            self._next = now + _BETWEEN
            self._draw(self._html(now - self._start))

    def close(self) -> None:
        if self._handle is not None:
            self._draw("")

    def _html(self, seconds: float) -> str:
        said = html.escape(self._text)
        if self._total is None:
            return f"{said} <progress></progress> {self._done:,}"
        left = round(seconds / self._done * (self._total - self._done)) if self._done else 0
        bar = f'<progress value="{self._done}" max="{self._total}"></progress>'
        return f"{said} {bar} {self._done:,}/{self._total:,}, {left // 60}:{left % 60:02} left"

    def _draw(self, content: str) -> None:
        shown: Any = import_module("IPython.display")  # which a notebook has; it has no types
        if self._handle is None:
            self._handle = shown.display(shown.HTML(content), display_id=True)
        else:
            self._handle.update(shown.HTML(content))


def _bar(text: str, total: int | None) -> _Terminal | _Notebook | None:
    console = Console(stderr=True)
    if console.is_jupyter:
        return _Notebook(text, total)
    # Asked of the stream itself: rich takes FORCE_COLOR, which logs set, for a terminal.
    if sys.stderr is not None and sys.stderr.isatty() and not console.is_dumb_terminal:
        return _Terminal(console, text, total)
    return None


def _nothing(count: int = 1, /, text: str | None = None) -> None:
    pass

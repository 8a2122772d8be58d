"""Ctrl-C in the command: exit status 130 and one line, whatever it meets.

Most of the time it raises KeyboardInterrupt, so that work can say what is kept and how it goes on. Where packages are
being imported nothing is to be put away, and code in C turns the exception into others or loses it: there the process
says its line and ends at once. So it does at a second Ctrl-C.
"""

import os
import signal
import sys
from types import FrameType

# No other imports: until these are done, Ctrl-C ends in a traceback.
__all__ = ["Interruptible", "interrupted", "say_interrupted"]

_LINE = "unbraid: interrupted\n"
_SHOW_CURSOR = "\r\x1b[2K\x1b[?25h"  # a bar had hidden it
_asked = False


class Interruptible:
    """Take Ctrl-C meanwhile, unless it is ignored or somebody else's."""

    def __init__(self, *, process: bool) -> None:
        """`process`: whether the process ends with the command; then no later Ctrl-C disturbs its end."""
        self._after = signal.SIG_IGN if process else signal.default_int_handler
        self._unraisable, self._taken = sys.unraisablehook, False

    def __enter__(self) -> None:
        global _asked
        _asked = False
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            try:
                signal.signal(signal.SIGINT, _handler)
            except ValueError:  # not the main thread, which alone is interrupted
                return
            self._taken = True
            usual = self._unraisable
            sys.unraisablehook = lambda lost: _end() if lost.exc_type is KeyboardInterrupt else usual(lost)

    def __exit__(self, *_: object) -> None:
        if self._taken:
            sys.unraisablehook = self._unraisable
            signal.signal(signal.SIGINT, self._after)


def interrupted() -> bool:
    """Whether Ctrl-C has come: another exception may be what became of it."""
    return _asked


def _handler(number: int, frame: FrameType | None) -> None:
    global _asked
    if _asked or _importing(frame):
        _end()
    _asked = True
    raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def say_interrupted() -> int:
    """Say the line, of several ranks the first alone, and give the exit status."""
    if os.environ.get("RANK", "0") == "0":
        os.write(2, ((_SHOW_CURSOR if os.isatty(2) else "") + _LINE).encode())
    return 130


def _end() -> None:
    os._exit(say_interrupted())

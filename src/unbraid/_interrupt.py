"""Ctrl-C, held back where it would do harm.

Python raises KeyboardInterrupt wherever the main thread happens to be. While a model is traced that may be a function
that torch's C++ has called and that must not fail (it asks for a size that is a symbol, say): the process aborts. Or it
is a context that is being left: what it had changed of torch, or of the model, would stay. There the signal waits for a
better moment, some milliseconds later.
"""

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["held_back"]

_AGAIN = 0.005  # seconds until the next try
# Functions that C++ calls, and those that put things back.
_FUNCTIONS = frozenset({"__torch_dispatch__", "__torch_function__", "__enter__", "__exit__", "__del__", "put_back"})
_FILES = ("/torch/fx/experimental/sym_node.py", "/torch/fx/experimental/symbolic_shapes.py")


@contextmanager
def held_back() -> Iterator[None]:
    """Inside, the main thread is interrupted where that does no harm, by whatever handler the user has."""
    usual: Any = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        if _harmful(frame):
            again = threading.Timer(_AGAIN, _thread.interrupt_main)
            again.daemon = True
            again.start()
        else:
            usual(number, frame)

    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _harmful(frame: FrameType | None) -> bool:
    while frame is not None:
        code = frame.f_code
        if code.co_name in _FUNCTIONS or code.co_filename.endswith(_FILES):
            return True
        frame = frame.f_back
    return False

"""A function of a name, called in a process of its own with a limit of time and one of memory.

    for name, outcome in each(names, work, limits, jobs=1, lost=lost): ...

Time is the processor's, as others may share the machine; a call that waits forever ends after ten times as long by the
clock. Memory is what the process holds (its resident pages), not what it has reserved: torch reserves far more than it
uses. The processes are forked from one that has imported the libraries: importing them takes longer than most calls.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Limits:
    """Of one call.

    Attributes:
        seconds: of the processor.
        megabytes: of memory that its process holds.
    """

    seconds: float = 120.0
    megabytes: float = 6000.0


def each(
    names: Sequence[str],
    work: Callable[[str], Any],
    limits: Limits,
    *,
    jobs: int,
    lost: Callable[[str, str], Any],
    preload: Sequence[str],
) -> Iterator[tuple[str, Any]]:
    """The outcome of each call, as it arrives; `lost(name, reason)` where a process did not live to tell."""
    # Before Python 3.13 the process that imports ahead does not get our sys.path, and passes over what it cannot find.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    waiting, running = list(names), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_call, args=(work, name, there), daemon=True)
                process.start()
                there.close()
                running[name] = (process, here, time.monotonic())
            for name, (process, here, started) in list(running.items()):
                arrived, outcome = _arrived(process, here, started, limits)
                if arrived:
                    del running[name]
                    yield name, outcome if isinstance(outcome, dict) else lost(name, outcome)
            time.sleep(0.05)
    finally:
        for process, _, _ in running.values():
            process.kill()


def _arrived(process: Any, here: Connection, started: float, limits: Limits) -> tuple[bool, Any]:
    """Whether a process has ended, or was made to, and what it said or why it said nothing."""
    if here.poll():
        try:
            outcome = here.recv()
        except EOFError:
            process.join()
            if process.exitcode == 1:
                raise RuntimeError("the call itself failed, see above: this is no limit") from None
            return True, f"its process ended with code {process.exitcode}"
        process.join(10)
        return True, outcome
    over = ""
    if _seconds(process.pid) > limits.seconds or time.monotonic() - started > 10 * limits.seconds:
        over = f"took more than {limits.seconds:g} s"
    elif _megabytes(process.pid) > limits.megabytes:
        over = f"held more than {limits.megabytes:g} MB"
    if over:
        process.kill()
        process.join()
    return bool(over), over


def _seconds(pid: int) -> float:
    try:
        user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / TICKS
    except (OSError, ValueError):  # it has just ended, or this is no Linux
        return 0.0


def _megabytes(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6
    except (OSError, IndexError):  # it has just ended, or this is no Linux
        return 0.0


def _call(work: Callable[[str], Any], name: str, there: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one speaks for all
    there.send(vars(work(name)))

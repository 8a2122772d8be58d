"""One run of pytest that collects the tests of a file and judges each of its mutants in a fork."""

import gc
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any

from mutants._mutants import SUBJECTS, Mutant, Result

__all__ = ["judge"]

_LEAST_SECONDS, _TIMES = 30, 5  # of processor time: a mutant that takes longer than both hangs


def judge(root: Path, file: str, due: Sequence[Mutant], jobs: int, keep: Callable[[Result], None]) -> bool:
    """Judge mutants of one file; False where its tests fail on the file as it is."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(root)
    sys.path[:0] = [str(root / "src"), str(root / "tests")]
    import hypothesis
    import pytest
    import torch

    torch.set_num_threads(1)
    hypothesis.settings.register_profile(
        "mutants",
        derandomize=True,
        database=None,
        deadline=None,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),  # a failure is enough: nothing is shrunk
    )
    hypothesis.settings.load_profile("mutants")
    quiet = ["-q", "-m", "not slow", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    judged = _Judge(root, file, due, jobs, keep)
    pytest.main([*quiet, *SUBJECTS[file]], plugins=[judged])
    return judged.sound


class _Judge:
    """A plugin of pytest that runs the collected tests once for each mutant."""

    def __init__(self, root: Path, file: str, due: Sequence[Mutant], jobs: int, keep: Callable[[Result], None]) -> None:
        self.path = str(root / file)
        self.due = due
        self.jobs = jobs
        self.keep = keep
        self.sound = False
        self.running: dict[int, tuple[Mutant, float, int]] = {}

    def pytest_runtestloop(self, session: object) -> bool:
        items = list(session.items)  # type: ignore[attr-defined]
        gc.collect()
        functions = _functions(self.path)
        begun = time.process_time()
        same = Mutant(self.due[0].file, 0, "", "", Path(self.path).read_text(encoding="utf-8"))
        child = _forked(session, items, lambda: _put(same, self.path, functions), 3600, self.path)
        with os.fdopen(child[1]) as file:
            said = file.read()
        _, status, used = os.wait4(child[0], 0)
        self.sound = status == 0
        if not self.sound:
            print(said, file=sys.stderr)
            return True
        lines = {name: set(found) for name, found in json.loads(said).items()}
        seconds = int(max(_LEAST_SECONDS, _TIMES * (used.ru_utime + used.ru_stime)))
        print(
            f"{self.path}: {len(items)} tests, {used.ru_utime + used.ru_stime:.0f} s, {begun:.0f} s before", flush=True
        )
        for mutant in self.due:
            while len(self.running) >= self.jobs:
                self._gather(items)
            put = partial(_put, mutant, self.path, functions)
            pid, reader = _forked(session, _reached(mutant, items, lines), put, seconds)
            self.running[pid] = (mutant, time.monotonic(), reader)
        while self.running:
            self._gather(items)
        return True

    def _gather(self, items: list[object]) -> None:
        pid, status, used = os.wait4(-1, 0)
        mutant, begun, reader = self.running.pop(pid)
        with os.fdopen(reader) as file:
            killer = file.read()
        code = os.waitstatus_to_exitcode(status)
        end = "survived" if code == 0 else "hung" if code in (-signal.SIGXCPU, -signal.SIGKILL) else "killed"
        cpu, wall = used.ru_utime + used.ru_stime, time.monotonic() - begun
        # Changes near to another tend to fail the same test.
        first = next((item for item in items if item.nodeid == killer), None)  # type: ignore[attr-defined]
        if first is not None:
            items.remove(first)
            items.insert(0, first)
        self.keep(Result(mutant.key, end, round(cpu, 1), round(wall, 1), killer))


def _reached(mutant: Mutant, items: Sequence[object], lines: Mapping[str, set[int]]) -> Sequence[object]:
    """The tests that run the statement which is changed."""
    if mutant.span is None:
        return list(items)
    inside = set(range(mutant.span[0], mutant.span[1] + 1))
    return [item for item in items if not inside.isdisjoint(lines[item.nodeid])]  # type: ignore[attr-defined]


def _forked(
    session: object, items: Sequence[object], change: Callable[[], None], seconds: int, watch: str = ""
) -> tuple[int, int]:
    """Run the tests in a fork, after a change; its process, and where it says which test failed.

    With a file to watch, and no failure, it says which of its lines each test ran.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        change()
        lines: dict[str, set[int]] = {}
        failed = _failed(session, items, watch, lines)
        said = json.dumps({name: sorted(found) for name, found in lines.items()}) if watch and not failed else failed
        with os.fdopen(writer, "w", closefd=False) as file:
            file.write(said)
        status = 1 if failed else 0
    except BaseException as error:
        os.write(writer, f"{type(error).__name__}".encode())
    finally:
        os._exit(status)


def _failed(session: object, items: Sequence[object], watch: str, lines: dict[str, set[int]]) -> str:
    """The first test that fails; nothing where all pass."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        ran = lines.setdefault(item.nodeid, set())  # type: ignore[attr-defined]
        if watch:
            sys.settrace(partial(_trace, watch, ran))
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)  # type: ignore[attr-defined]
        sys.settrace(None)
        if session.testsfailed:  # type: ignore[attr-defined]
            return str(item.nodeid)  # type: ignore[attr-defined]
    return ""


def _trace(path: str, ran: set[int], frame: FrameType, event: str, argument: object) -> Any:
    """A trace function that notes the lines of one file that run."""
    if frame.f_code.co_filename != path:
        return None
    ran.add(frame.f_lineno)
    return partial(_trace, path, ran)


def _put(mutant: Mutant, path: str, old: Sequence[FunctionType]) -> None:
    """Put the mutant in place: its functions' code and defaults, and what else of its module's names is no class."""
    module = next(module for module in list(sys.modules.values()) if getattr(module, "__file__", None) == path)
    space = {"__name__": module.__name__, "__package__": module.__package__, "__file__": path}
    exec(compile(mutant.source, path, "exec"), space)
    known = {id(function) for function in old}
    new = {found.__qualname__: found for found in _functions(path) if id(found) not in known}
    for function in old:
        twin = new.get(function.__qualname__)
        if twin is not None and twin.__code__.co_freevars == function.__code__.co_freevars:
            function.__code__ = twin.__code__
            function.__defaults__, function.__kwdefaults__ = twin.__defaults__, twin.__kwdefaults__
    for name, value in space.items():
        if not isinstance(value, type | FunctionType) and not name.startswith("__"):
            setattr(module, name, value)


def _functions(path: str) -> list[FunctionType]:
    found = gc.get_objects()
    # By type alone: some objects of torch answer isinstance with a warning.
    return [one for one in found if type(one) is FunctionType and one.__code__.co_filename == path]

"""What may come of a case: success, or an error that the command turns into one line. Nothing else, and soon."""

import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unbraid.errors import UnbraidError

SECONDS = 60  # a case takes a thousandth of it
# What runs code or reaches out, by the names of Python's audit events.
_NEVER = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "ctypes.dlopen"}
_NEVER |= {"socket.connect", "socket.getaddrinfo"}
_WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "shutil.rmtree"}

_active: list[Path] = []
_seen: list[str] = []


def _audit(event: str, arguments: tuple) -> None:
    if not _active:
        return
    if event == "ctypes.dlopen" and str(arguments[0]).startswith(sys.prefix):
        return  # a package that is imported when first needed
    if event in _NEVER:
        _seen.append(f"{event}{arguments[:2]}")
    elif event in _WRITES or (event == "open" and set(str(arguments[1])) & set("wax+")):
        _check_place(event, arguments[0])


def _check_place(event: str, path: object) -> None:
    if isinstance(path, str | bytes | Path) and not _inside(Path(str(path))):
        _seen.append(f"{event}({path})")


def _inside(path: Path) -> bool:
    return (path.is_absolute() and _active[0] in (path, *path.parents)) or "__pycache__" in path.parts


sys.addaudithook(_audit)


@contextmanager
def _watched(folder: Path) -> Iterator[None]:
    def late(number, frame):
        raise TimeoutError(f"no end after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    _active.append(folder)
    try:
        yield
    finally:
        _active.clear()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def judge(folder: Path, load: Callable[[], object]) -> str:
    """Run a loader; "loaded" or "refused". Anything but a loader's own errors is raised.

    Raises:
        AssertionError: code ran, a file outside the folder was written, or an error has no text for a line.
        Exception: what a user would see as a traceback.
    """
    _seen.clear()
    try:
        with _watched(folder), warnings.catch_warnings(action="ignore"):
            load()
        end = "loaded"
    except TimeoutError as error:
        raise AssertionError(str(error)) from error
    except (UnbraidError, ValueError, OSError) as error:
        end = "refused" if str(error).strip() else f"{type(error).__name__} says nothing"
    assert not _seen, f"it did {_seen[:3]}"
    assert end in ("loaded", "refused"), end
    return end

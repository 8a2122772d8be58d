"""Results go to stdout, everything else to stderr."""

import codecs
import errno
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from unbraid._progress import progress as bar

__all__ = ["JSON", "ClosedOutputError", "flush", "prepare", "progress", "show", "tell", "written"]

JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
_LETTERS = {
    "×": "x",
    "·": ".",
    "√": "sqrt",
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "‖": "||",
    "∂": "d",
    "¹": "1",
    "→": "->",
}
_WIDTH_OF_PIPES = 120  # rich takes 80 where there is no terminal, too little for most tables


def show(result: RenderableType, data: Any, *, as_json: bool) -> None:
    """Print a result on stdout: `data` as JSON, or `result` for people. What was not measured, nan, is null in JSON."""
    written()
    if as_json:
        text = json.dumps(_known(data), ensure_ascii=not _is_unicode(sys.stdout.encoding), allow_nan=False, indent=1)
        with _open_output():
            sys.stdout.write(f"{text}\n")
        return
    # Names of models are data: no markup, no emoji codes.
    console = Console(
        markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_PIPES
    )
    with _open_output():
        console.print(result)


def written() -> None:
    """Refuse to go on where standard output was closed from the first, so that nothing that is printed is written.

    Raises:
        ClosedOutputError: it was.
    """
    if sys.stdout is None:
        raise ClosedOutputError("standard output is closed, so the result has nowhere to go.")


def prepare() -> None:
    """Let every encoding of standard output do: what it lacks is spelled in letters that it has."""
    if isinstance(sys.stdout, TextIOWrapper) and not _is_unicode(sys.stdout.encoding):
        codecs.register_error("unbraid-spell", _spelled)
        sys.stdout.reconfigure(errors="unbraid-spell")


def _spelled(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(_LETTERS.get(letter, "?") for letter in missing), error.end


class ClosedOutputError(Exception):
    """Standard output was closed before the result was written."""


def flush() -> None:
    """Write what is still held back, so that a closed output is met here and not at the end of the process."""
    if sys.stdout is not None:
        with _open_output():
            sys.stdout.flush()


@contextmanager
def _open_output() -> Iterator[None]:
    try:
        yield
    except (BrokenPipeError, SystemExit) as error:  # rich makes the first into the second
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        # What is buffered goes nowhere: else the interpreter would try once more as it ends, and complain.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        raise ClosedOutputError("standard output was closed before all of the result was written.") from error
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        raise ClosedOutputError("standard output is closed, so the result has nowhere to go.") from error


def _is_unicode(encoding: str | None) -> bool:
    return (encoding or "utf-8").lower().replace("_", "-").startswith("utf")


def _known(data: Any) -> Any:
    """The same with None for every number that JSON does not have."""
    if isinstance(data, Mapping):
        return {key: _known(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_known(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def tell(line: str) -> None:
    """Say something about what is going on, on stderr."""
    Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True).print(line)


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """The library's bar, for work that a verb does in many calls.

    Yields:
        A function that takes one step; its text says what is being done.
    """
    with bar("", total) as step:
        yield lambda text: step(text=text)

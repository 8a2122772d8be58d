"""The entry point: runs a verb and turns what goes wrong into one line and an exit status."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from unbraid.cli._app import app
from unbraid.cli._complete import for_bash
from unbraid.cli._console import ClosedOutputError, flush, prepare, tell, written
from unbraid.cli._interrupt import interrupted
from unbraid.cli._ranks import on_ranks, report_failure
from unbraid.errors import RankError, UnbraidError

__all__ = ["run"]

_HELP = {"--help", "--version"}  # what typer prints, and does not mind if nobody gets it
_BAD_INPUT, _FAULT, _INTERRUPTED = 2, 1, 130
# How the work that was done by then goes on.
_GOES_ON = {
    "train": "; the same command with --resume goes on after the last epoch",
    "prune": "; with --save, the same command goes on after the last epoch of its healing",
    "lesion": "; what is finished is kept, and the same command goes on",
}


def run(arguments: Sequence[str] | None) -> int:
    """See `unbraid.cli.main`."""
    for_bash(os.environ)
    prepare()
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    rest = [argument for argument in given if argument != "--debug"] or ["--help"]
    try:
        return on_ranks(lambda: _status(rest, debug=debug), rest)
    except RankError as error:  # they did not find one another
        if debug:
            raise
        _fail(f"unbraid: {one_line(error)}")
        return _FAULT


def _status(rest: list[str], *, debug: bool) -> int:
    try:
        status = _app(rest)
        if not _HELP.isdisjoint(rest):
            written()
        flush()
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except ClosedOutputError as error:
        _fail(f"unbraid: {error}")
        return _BAD_INPUT
    except (UnbraidError, ValueError, OSError, typer.TyperException) as error:
        if debug:
            raise
        _fail(f"unbraid: {one_line(error)}")
        return _FAULT if isinstance(error, RankError) and not error.bad_input else _BAD_INPUT
    except Exception as error:
        if debug:
            raise
        if isinstance(error, MemoryError) or _no_room(error):
            _fail(f"unbraid: it does not fit into memory: {one_line(error)}")
            return _BAD_INPUT
        _fail(f"unbraid: a fault of unbraid's own, {type(error).__name__}: {one_line(error)} (--debug shows where)")
        return _FAULT
    if status == _INTERRUPTED:
        tell(f"unbraid: interrupted{_GOES_ON.get(rest[0], '')}")
    return status if isinstance(status, int) else 0


def _no_room(error: Exception) -> bool:
    """Whether torch could not get the memory for a tensor, or for counting its bytes: it has no error of its own."""
    said = str(error)
    return isinstance(error, RuntimeError) and any(
        words in said for words in ("can't allocate memory", "not enough memory", "size calculation overflowed")
    )


def _app(rest: list[str]) -> Any:
    try:
        return app(args=rest, prog_name="unbraid", standalone_mode=False)
    except Exception as error:
        if interrupted():  # and code in C has made something else of it
            raise KeyboardInterrupt from error
        raise


def _fail(line: str) -> None:
    tell(line)
    report_failure(line)


def one_line(error: Exception) -> str:
    """The message without its line breaks; lines of carets, which mark a place in the line above, are left out."""
    text = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f'{error.strerror}: "{error.filename}"'
    said = ""
    for line in (line.strip() for line in text.splitlines()):
        if line.strip("^ ") == "":
            continue
        said += line if not said else (f" {line}" if said[-1] in ".:;," else f"; {line}")
    return said or type(error).__name__

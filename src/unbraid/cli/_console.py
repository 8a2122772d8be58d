"""Results go to stdout, everything else to stderr."""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from unbraid._progress import progress as bar

__all__ = ["JSON", "progress", "show", "tell"]

JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
_WIDTH_OF_PIPES = 120  # rich takes 80 where there is no terminal, too little for most tables


def show(result: RenderableType, data: Any, *, as_json: bool) -> None:
    """Print a result on stdout: `data` as JSON, or `result` for people. What was not measured, nan, is null in JSON."""
    if as_json:
        sys.stdout.write(json.dumps(_known(data), ensure_ascii=False, allow_nan=False, indent=1) + "\n")
        return
    # Names of models are data: no markup, no emoji codes.
    console = Console(
        markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_PIPES
    )
    console.print(result)


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

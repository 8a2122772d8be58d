"""A bar with the time left on stderr, gone when done and never drawn where stderr is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unbraid.form import Batches
from unbraid.ranks import world


@contextmanager
def progress(text: str, variants: int, batches: Batches) -> Iterator[Callable[[int], object]]:
    """Yields a function that moves the bar by so many variants; how many batches there are may not be known."""
    console = Console(stderr=True)
    if not console.is_terminal or not world().first:
        yield lambda steps: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        try:
            total = variants * len(batches)  # type: ignore[arg-type]
        except TypeError:
            total = None
        task = bar.add_task(text, total=total)
        yield lambda steps: bar.advance(task, steps)

"""A progress bar for each run, on stderr, so that results on stdout stay clean."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from unbraid.train._run import Epoch

__all__ = ["Bars", "progress"]


class Bars:
    """Progress bars, one below the other; see `progress`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def track(self, label: str, epochs: int) -> Callable[[Epoch], None]:
        """A new bar, and the function that moves it: hand it to `fit` as `on_epoch`."""
        task = self._progress.add_task(label, total=epochs, error="")

        def on_epoch(epoch: Epoch) -> None:
            self._progress.update(task, completed=epoch.epoch, error=f"test error {epoch.test_error:.1f} %")

        return on_epoch


@contextmanager
def progress(console: Console | None = None) -> Iterator[Bars]:
    """Show progress bars inside the block.

        with train.progress() as bars:
            train.fit(network, data, on_epoch=bars.track("20 blocks", epochs=40))

    Args:
        console: where to draw; stderr by default.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[error]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console or Console(stderr=True)) as shown:
        yield Bars(shown)

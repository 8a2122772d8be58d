"""How a network learned."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unbraid.draw._sheet import sheet
from unbraid.draw._style import PALETTE

__all__ = ["epochs"]


def epochs(train: Sequence[float], test: Sequence[float], finding: str, *, ax: Axes | None = None) -> Figure:
    """Train and test error by epoch.

    Args:
        train: the share of the training part answered wrongly in each epoch, in %.
        test: that of the test part after it.
        finding: the title.
        ax: where to draw; by default a figure of its own.

    Raises:
        ValueError: the lengths differ.
    """
    if len(train) != len(test):
        raise ValueError(f"epochs: needs a test error for every train error; got {len(test)} for {len(train)}.")
    with sheet(7.2, 3.6, ax) as page:
        axes = page.axes
        places = range(1, len(train) + 1)
        axes.plot(places, train, color=PALETTE[3], linestyle="--", marker="s", markersize=3, label="train")
        axes.plot(places, test, color=PALETTE[0], marker="o", markersize=3, label="test")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel("error (%)")
        axes.set_ylim(bottom=0)
        if train:
            page.legend()
        page.title(finding)
    return page.figure

"""What a model is made of: the parameters of its blocks, and what pruning leaves of them."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from unbraid.draw._sheet import sheet
from unbraid.draw._style import PALETTE, shorten

__all__ = ["blocks", "left"]

_MOST_NAMED = 24  # bars that still carry their names on half a page
_SKIPS = {"identity": PALETTE[0], "projection": PALETTE[1], "gate": PALETTE[2], "mix": PALETTE[4], "none": PALETTE[3]}


def blocks(names: Sequence[str], parameters: Sequence[int], skips: Sequence[str], *, ax: Axes | None = None) -> Figure:
    """One bar per block in order of execution, as long as what it learns, in the colour of its skip.

    Args:
        names: of the blocks; shown as they stand, and left out beyond 24.
        parameters: how many numbers each learns.
        skips: the kind of each skip: "identity", "projection", "gate", "mix" or "none".
        ax: where to draw; by default a figure of its own.

    Raises:
        ValueError: nothing is given, or the lengths differ.
    """
    if not names or not len(names) == len(parameters) == len(skips):
        raise ValueError(f"blocks: needs parameters and a skip for each of {len(names)} names.")
    named = len(names) <= _MOST_NAMED
    with sheet(7.2, 1.75 + 0.3 * len(names) if named else 4.2, ax) as page:
        axes = page.axes
        for kind, color in _SKIPS.items():
            chosen = [place for place, skip in enumerate(skips) if skip == kind]
            sizes = [parameters[place] for place in chosen]
            said = f"skip: {kind}"
            if chosen and named:
                axes.barh(chosen, sizes, height=0.62, color=color, label=said)
            elif chosen:
                axes.bar(chosen, sizes, width=0.8, color=color, label=said)
        if named:
            axes.set_yticks(range(len(names)), [shorten(name, 28) for name in names])
            for text in axes.get_yticklabels():
                text.set_parse_math(False)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 4M, not a factor of 1e6 in the corner
            axes.set_xlabel("parameters (numbers learned)")
        else:
            axes.set_xlabel("block, in order of execution")
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
            axes.set_ylabel("parameters (numbers learned)")
        page.legend()
        page.title(f"{len(names)} blocks with {sum(parameters):,} parameters in their branches and skips")
    return page.figure


def left(names: Sequence[str], counts: Sequence[tuple[int, int]], *, ax: Axes | None = None) -> Figure:
    """What is left of each quantity, in percent of what there was.

    Args:
        names: of the quantities.
        counts: before and after of each.
        ax: where to draw; by default a figure of its own.

    Raises:
        ValueError: nothing is given, or the lengths differ.
    """
    if not names or len(names) != len(counts):
        raise ValueError(f"left: needs before and after for each of {len(names)} names; got {len(counts)}.")
    shares = [100 * after / before if before else 0.0 for before, after in counts]
    with sheet(7.2, 1.35 + 0.36 * len(names), ax) as page:
        axes = page.axes
        axes.barh(range(len(names)), shares, height=0.62, color=PALETTE[0])
        for place, (share, (_, after)) in enumerate(zip(shares, counts, strict=True)):
            axes.annotate(f"{after:,}", (share, place), (4, 0), textcoords="offset points", va="center", size=9.0)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 125)  # room for a number behind a bar of 100 %
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel("left (%)")
        page.title(f"Pruning leaves {shares[0]:.0f} % of the {names[0]}")
    return page.figure

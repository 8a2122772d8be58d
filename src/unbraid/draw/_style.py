"""The one style of every figure: fonts, inks and a palette that survives colour blindness and grey print."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.text import Text

__all__ = ["INK", "MUTED", "PALETTE", "PAPER", "Page", "blank", "colour", "plain_text", "shorten", "style"]

# Every drawing uses these two for what is neither data nor block, so that a page with a dark theme can
# exchange them (see unbraid.report) without touching the rest.
INK = "#1b1e23"
PAPER = "#ffffff"
MUTED = "#6b7280"

# The hues of Okabe and Ito (2008), the light ones darkened until a line is seen on white paper, and ordered so that
# neighbours differ in lightness, which is what grey print keeps. tests/draw/test_palette.py computes what
# colour-blind readers see of it.
PALETTE = ("#0060a8", "#d08c00", "#007a5a", "#c8400a", "#4a9fd8", "#b85aa6")

_NOTEBOOK = 110  # dots per inch: sharp enough on a screen, some 20 kB per figure

_RC: Any = {  # Any: matplotlib types every key by name
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: one layout on every machine
    "font.size": 10.0,
    "mathtext.fontset": "stix",
    "text.color": INK,
    "text.parse_math": True,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": PAPER,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 12.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": PAPER,
    "figure.dpi": 100.0,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.08,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "lines.dash_capstyle": "butt",
    "savefig.dpi": 200.0,
    "svg.fonttype": "path",  # text as outlines: no viewer lacks the font, so nothing moves and overlaps
    "svg.hashsalt": "unbraid",  # the same figure gives the same bytes
}


@contextmanager
def style() -> Iterator[None]:
    """Within it, figures are made, drawn and saved in unbraid's style; afterwards matplotlib is as before."""
    with mpl.rc_context():
        mpl.rcdefaults()  # whatever the user set: a figure of ours looks the same everywhere
        mpl.rcParams.update(_RC)
        yield


class Page(Figure):
    """A figure that notebooks show although pyplot has not made it."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        with style():
            self.savefig(picture, format="png", dpi=_NOTEBOOK, metadata={"Software": None})
        return picture.getvalue()


def colour(block: int) -> str:
    """The colour of a block, from 0; they repeat after six."""
    return PALETTE[block % len(PALETTE)]


def blank(width: float, height: float) -> Figure:
    """An empty figure of width × height inches whose one axes counts in inches and shows no frame."""
    figure = Page(figsize=(width, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0.0, width)
    axes.set_ylim(0.0, height)
    axes.set_axis_off()
    return figure


def shorten(name: str, limit: int = 40) -> str:
    """The name in one line of at most `limit` characters, cut in its middle, where names differ least."""
    name = " ".join(name.split())
    half = (limit - 1) // 2
    return name if len(name) <= limit else f"{name[:half]}…{name[-half:]}"


def plain_text(text: Text, limit: int = 40) -> None:
    """Show a name that we did not write as it stands: no mathematics in it, and no longer than `limit`."""
    text.set_parse_math(False)
    text.set_text(shorten(text.get_text(), limit))

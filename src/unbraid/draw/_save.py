"""Figures to files and text."""

import io
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.figure import Figure

from unbraid.draw._style import style

__all__ = ["save", "svg"]

_FORMATS = (".png", ".svg")


def svg(figure: Figure) -> str:
    """The figure as SVG text; the same figure gives the same text, as neither date nor random ids are written."""
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write the figure as PNG (200 dots per inch) or SVG, by the suffix of `path`; whole or not at all.

    Raises:
        ValueError: the suffix is neither .png nor .svg.
        OSError: the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() not in _FORMATS:
        raise ValueError(f'figures are written as .png or .svg; got "{target}".')
    if not target.parent.is_dir():
        raise FileNotFoundError(f'no such folder: "{target.parent}"')
    kind = target.suffix.lower()[1:]
    # Written beside the target and renamed: a reader, or an interrupt, never meets half a picture.
    with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder, style():
        unfinished = Path(folder) / target.name
        figure.savefig(unfinished, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
        unfinished.replace(target)
    return target

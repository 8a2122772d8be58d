"""A report on disk: the page, and its numbers beside it."""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from unbraid.reports._content import Page
from unbraid.reports._render import render, to_dict

__all__ = ["check_path", "write"]


def check_path(path: str | os.PathLike[str]) -> Path:
    """The path of a page, known to be one before the work is done, not after it.

    Raises:
        ValueError: it does not end in .html.
    """
    target = Path(path)
    if target.suffix.lower() != ".html":
        raise ValueError(f'a report is written to a path that ends in .html; got "{target}".')
    return target


def write(page: Page, path: str | os.PathLike[str]) -> Path:
    """Write the page to `path`, and every number in it to `report.json` in the same folder.

    Each file is written under another name and renamed, so that a reader never meets half of one. The folder is
    made where it is missing.

    Returns:
        The path of the page.

    Raises:
        ValueError: the path does not end in .html, or a picture holds more than shapes.
        OSError: a file cannot be written.
    """
    target = check_path(path)
    html = render(page)
    numbers = json.dumps(to_dict(page), ensure_ascii=False, allow_nan=False, indent=1)
    target.parent.mkdir(parents=True, exist_ok=True)
    _replace(target.with_name("report.json"), numbers + "\n")
    _replace(target, html)
    return target


def _replace(target: Path, text: str) -> None:
    # In a folder of mode 0700: nobody else reads half a page, or lays a link where it is going to be written.
    with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        unfinished = Path(folder) / target.name
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        unfinished.replace(target)

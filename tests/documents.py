"""The documents as tests: their Python blocks run, and what they print is what the page says they print.

A fence of the language `output` holds what the Python block before it printed. Numbers may differ by rounding: whole
ones must be equal, those with a point may move by two units of their last digit or by 3 %, and what is printed as a
rounding error, 1.2e-07, must stay below 1e-5. `scripts/outputs.py` writes the fences anew.
"""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import rich
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

DOCUMENTS = ["README.md", "docs/*.md", "docs/studies/*.md"]
_NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")
_ROUNDING = 1e-5


class Captured(PythonEvaluator):
    """Runs a block and keeps what it prints."""

    def __call__(self, example: Example) -> None:
        """Sybil's evaluator, with the output in the document's namespace."""
        printed = io.StringIO()
        with redirect_stdout(printed):
            super().__call__(example)
        example.namespace["_printed"] = _plain(printed.getvalue())


def compare(example: Example) -> str | None:
    """None where the block before printed this text, otherwise both."""
    wanted, got = _plain(example.parsed), example.namespace["_printed"]
    return None if alike(wanted, got) else f"the page says\n{wanted}\nand its code prints\n{got}"


def alike(wanted: str, got: str) -> bool:
    """Whether two texts differ in roundings alone."""
    if _NUMBER.sub("#", _columns(wanted)) != _NUMBER.sub("#", _columns(got)):
        return False
    return all(map(_close, _NUMBER.findall(wanted), _NUMBER.findall(got)))


def documents() -> Sybil:
    """The documents of the project, each with a namespace of its own."""
    parsers = [CodeBlockParser("python", Captured()), CodeBlockParser("output", compare)]
    root = str(Path(__file__).parents[1])
    return Sybil(parsers=parsers, path=root, patterns=DOCUMENTS, setup=_setup)


def run(page: Path) -> dict[str, Any]:
    """Run the Python blocks of a page and return the names they leave behind."""
    sybil = documents()
    document = sybil.parse(page.resolve())
    _setup(document.namespace)
    for example in document.examples():
        if example.region.evaluator is not compare:
            example.evaluate()
    return document.namespace


def _setup(namespace: dict[str, Any]) -> None:
    # Imported when a document is run: timm needs it, and no other test should pay for it.
    import torchvision_stub  # noqa: F401

    rich.reconfigure(width=100, force_terminal=False)  # the page's width, whatever the terminal's


def _plain(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def _columns(text: str) -> str:
    """A number that is one digit longer moves what stands around it, and draws a longer rule."""
    return re.sub(r"─+", "─", re.sub(r" +", " ", re.sub(r"^ +", "", text, flags=re.MULTILINE)))


def _close(wanted: str, got: str) -> bool:
    if wanted == got:
        return True
    first, second = float(wanted.replace(",", "")), float(got.replace(",", ""))
    if "e" in wanted + got and abs(first) < _ROUNDING:
        return abs(second) < _ROUNDING
    if "." not in wanted:
        return False
    units = 2 * 10.0 ** -len(wanted.split(".")[1]) if "e" not in wanted else 0.0
    return abs(first - second) <= max(units, 0.03 * abs(first))

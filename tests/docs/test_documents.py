"""What a page says its code prints is compared with what the code prints: roundings may differ, numbers may not."""

import re
import runpy
from pathlib import Path

import pytest

from documents import DOCUMENTS, alike

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^ *```(.*)\n(?:.*\n)*?^ *```$", re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        ("16 blocks, error 2.3e-07", "16 blocks, error 8.0e-08"),
        ("lag 1: 0.92", "lag 1: 0.91"),
        ("measured  274.2", "measured  280.1"),
        ("equals model(x) to 0.0e+00", "equals model(x) to 3.1e-16"),
        ("1,234.50 rows", "1,234.49 rows"),
        ("  a\n b", "a\nb"),
        (" ────\n  1.0", " ─────\n  1.01"),
    ],
)
def test_roundings_may_differ(page, printed):
    assert alike(page, printed)


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        ("16 blocks, error 2.3e-07", "17 blocks, error 2.3e-07"),
        ("error 2.3e-07", "error 2.3e-04"),
        ("lag 1: 0.92", "lag 1: 0.85"),
        ("(1, 4, 6, 4, 1)", "(1, 4, 6, 4)"),
        ("blocks.0", "blocks.1"),
        ("layer 1", "block 1"),
        ("-0.50", "0.50"),
    ],
)
def test_a_page_that_says_something_else_is_found(page, printed):
    assert not alike(page, printed)


def test_the_page_of_benchmarks_holds_what_was_measured():
    script = runpy.run_path(str(ROOT / "scripts" / "benchmarks_page.py"))
    page = script["PAGE"].read_text(encoding="utf-8")
    for name, table in script["tables"]().items():
        assert table in page, f"{name} was measured anew: run `python scripts/benchmarks_page.py`"


def test_no_block_escapes_by_its_language():
    """A fence marked `py`, or not at all, would not be run and nobody would know."""
    pages = [page for pattern in [*DOCUMENTS, "docs/**/*.md"] for page in ROOT.glob(pattern)]
    fences = {mark for page in pages for mark in FENCE.findall(page.read_text(encoding="utf-8"))}
    assert fences <= {"python", "output", "text", "console", "toml", "diff"}

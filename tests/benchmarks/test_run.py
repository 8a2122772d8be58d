"""The runner of the benchmarks; what they measure is no test's business."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from waiting import HANGS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runner(monkeypatch):
    return runpy.run_path(str(ROOT / "benchmarks" / "run.py"))


def test_every_result_has_numbers_that_can_be_compared(runner):
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        assert path.stem in runner["ALL"], f"no benchmark writes {path.name}"
        found = runner["numbers"](json.loads(path.read_text()))
        assert found, path.name
        assert all(value == value for value, _ in found.values())


def test_a_result_that_moved_is_shown_beside_the_committed_one(runner, monkeypatch):
    row = {
        "case": "a",
        "quantity": "q",
        "value": 2.0,
        "bar": "≤ 3",
        "device": "cpu",
        "threads": 1,
        "date": "2026-11-23",
    }
    found = runner["numbers"]({"rows": [row]})
    assert found == {"a: q, cpu, 1 threads": (2.0, {"bar": "≤ 3", "date": "2026-11-23"})}
    other = runner["numbers"]({"machine": {"date": "2026-11-22"}, "depth": [{"layers": 4, "seconds": 1.5}]})
    assert other == {"4: seconds": (1.5, {"date": "2026-11-22"})}


def test_a_name_that_is_none_is_said_in_one_line():
    program = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "speed"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=HANGS)
    assert done.returncode == 2
    assert done.stderr.startswith("no such benchmark: speed; there are attribute, ")

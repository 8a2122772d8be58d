"""The studies run, in their quick variants; their rows survive, and their pages are rewritten in place."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from marks import quick
from waiting import HANGS

STUDIES = Path(__file__).parents[2] / "studies"
sys.path.append(str(STUDIES))

from _study import Rows, grid, markdown, rewrite, rounded, spread  # noqa: E402

NAMES = sorted(path.stem for path in STUDIES.glob("*.py") if not path.stem.startswith("_"))


@pytest.mark.parametrize("name", quick(NAMES, "depth", "shattered"))
def test_the_quick_variant_prints_a_table(name, tmp_path):
    done = subprocess.run(
        [sys.executable, str(STUDIES / f"{name}.py"), "--quick"],
        capture_output=True, text=True, cwd=tmp_path, timeout=HANGS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) >= 3
    assert len({line.count("|") for line in rows}) == 1
    assert list(tmp_path.iterdir()) == []  # a look writes nothing


def test_every_study_has_its_page_with_a_place_for_the_table():
    docs = STUDIES.parent / "docs" / "studies"
    for name in NAMES:
        text = (docs / f"{name}.md").read_text()
        assert "<!-- table -->" in text
        assert f"python studies/{name}.py" in text


def test_finished_rows_are_not_run_again(tmp_path):
    ran = []

    def work(row):
        ran.append(row["seed"])
        return {"error": row["seed"] / 2, "bad": float("nan")}

    cells = grid(kind=["a"], seed=[0, 1, 2])
    file = tmp_path / "rows.json"
    Rows(file, "kind", "seed").run(cells[:2], work, say=lambda _: None)
    found = Rows(file, "kind", "seed").run(cells, work, say=lambda _: None)
    assert ran == [0, 1, 2]
    assert [row["error"] for row in found] == [0, 0.5, 1]
    assert json.loads(file.read_text())[0]["bad"] is None
    # Asked for less, they are all there still.
    assert len(Rows(file, "kind", "seed").run(cells[:1], work, say=lambda _: None)) == 1
    assert len(json.loads(file.read_text())) == 3


def test_a_run_that_fails_keeps_those_before_it(tmp_path):
    def work(row):
        if row["seed"] == 1:
            raise KeyboardInterrupt
        return {"error": 0}

    said, file = [], tmp_path / "rows.json"
    with pytest.raises(KeyboardInterrupt):
        Rows(file, "seed").run(grid(seed=[0, 1]), work, say=said.append)
    assert said == ["1/2  0", "2/2  1", f"interrupted; 1 of 2 runs are kept in {file}: the same command goes on"]
    assert [row["seed"] for row in json.loads((tmp_path / "rows.json").read_text())] == [0]


def test_tables_go_between_their_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- one -->\nold\n<!-- end -->\nbetween\n<!-- two -->\n<!-- end -->\nafter\n")
    for _ in range(2):  # twice is as once
        rewrite(page, {"one": "1", "two": "2"})
    assert page.read_text() == (
        "before\n<!-- one -->\n1\n<!-- end -->\nbetween\n<!-- two -->\n2\n<!-- end -->\nafter\n"
    )
    with pytest.raises(ValueError, match="no place for the table 'three'"):
        rewrite(page, {"three": "3"})


def test_cells_and_words():
    assert grid(a=[1, 2], b="xy") == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}
    ]  # fmt: skip
    assert markdown(["h", "1"], [["a", "b"]]) == "| h | 1 |\n| --- | ---: |\n| a | b |"
    assert rounded({"a": [0.12345, 2, None], "b": "0.12345"}, 2) == {"a": [0.12, 2, None], "b": "0.12345"}
    assert spread([1.0]) == "1.00"
    assert spread([1.0, 3.0, 2.0], ".1f") == "2.0 (1.0 to 3.0)"
    assert spread([1.0, float("nan")], ".0f") == "1, 1 of 2 diverge"
    assert spread([float("inf")]) == "none of 1"


def test_a_study_killed_at_random_moments_ends_with_the_rows_of_an_unbroken_one(tmp_path):
    program = [sys.executable, str(Path(__file__).with_name("_killed_rows.py"))]
    for name, kills in (("whole", 0), ("killed", 12)):
        done = subprocess.run(
            [*program, str(tmp_path / f"{name}.json"), str(kills)],
            capture_output=True,
            text=True,
            check=False,
            timeout=HANGS,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert done.stdout.isdecimal()

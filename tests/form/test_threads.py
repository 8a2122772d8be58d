"""What other threads do while one traces: print, draw, fork, run models. Real threads and real forks."""

import subprocess
import sys
from pathlib import Path

import pytest

from marks import slow
from waiting import HANGS


def run(what):
    program = [sys.executable, "-W", "ignore::DeprecationWarning", str(Path(__file__).with_name("_threads.py")), what]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    return done


def test_what_other_threads_write_on_stderr_arrives():
    done = run("errors")
    assert [line for line in done.stderr.splitlines() if line.startswith("line ")] == [
        f"line {number}" for number in range(int(done.stdout))
    ]
    assert "def forward" not in done.stderr  # the graph that the exporter could not finish


@pytest.mark.parametrize(
    ("what", "said"), [("numbers", "True"), ("forks", "forked True"), slow("nested", "1"), slow("models", "same True")]
)
def test_others_are_not_disturbed(what, said):
    assert run(what).stdout.startswith(said)

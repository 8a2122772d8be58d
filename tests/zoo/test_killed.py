"""The zoo goes on where it was killed."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from waiting import HANGS

SCRIPT = Path(__file__).parents[2] / "scripts" / "zoo.py"


def start(results):
    command = [sys.executable, str(SCRIPT), "--first", "3", "--results", str(results)]
    # A session of its own: the processes that trace die with it.
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def finished(results):
    """What was found of each model, in order, without the time that it took; a line cut short by a kill is none."""
    found = []
    for text in results.read_text().splitlines() if results.exists() else []:
        try:
            record = json.loads(text)
        except ValueError:
            continue
        found.append(
            (record["name"], {key: value for key, value in record["result"].items() if key not in {"seconds", "build"}})
        )
    return found


@pytest.mark.slow
def test_a_killed_zoo_goes_on_where_it_was(tmp_path):
    draw, whole, killed = random.Random(5), tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    assert start(whole).communicate(timeout=HANGS)[0].count("\n") >= 3
    last = []
    for _ in range(6):
        zoo = start(killed)
        try:
            zoo.wait(timeout=draw.uniform(5, 30))
        except subprocess.TimeoutExpired:
            os.killpg(zoo.pid, signal.SIGKILL)
            zoo.wait()
        zoo.stdout.close()
        found = finished(killed)
        assert found[: len(last)] == last, "a finished model was lost or traced again"
        last = found
    zoo = start(killed)
    zoo.communicate(timeout=HANGS)
    assert zoo.returncode == 0
    assert finished(killed) == finished(whole)

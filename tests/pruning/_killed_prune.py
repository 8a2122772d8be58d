"""Run as a program: prune, heal and save, killed at later and later touches of the folder, until it gets through.

    python _killed_prune.py SPEC DATA FOLDER UNBROKEN

It prints how many victims there were, how many epochs had been kept when the last one began, and what both commands
said. Torch is imported once; each victim is a fork.
"""

import json
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from touches import die_at
from unbraid.cli import main

MOMENTS = (4, 30, 70, 75, 95, 125, 150, 170, 185, 10_000)


def command(spec, data, folder, out, die=None):
    """The status of the command in a process of its own; None where it was killed."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        if die is not None:
            die_at(folder, die)
        arguments = ["prune", spec, "--drop", "1", "--data", data, "--heal", "3", "--save", str(folder), "--json"]
        status = main(arguments)
        sys.stdout.flush()
        os._exit(status)
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def epochs(folder):
    metrics = folder / ".unfinished" / "healing" / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def run(spec, data, folder, unbroken):
    out = folder.parent / "out.json"
    assert command(spec, data, unbroken, out) == 0
    said = [json.loads(out.read_text())]
    reached = []
    for moment in MOMENTS:
        reached.append(epochs(folder))
        status = command(spec, data, folder, out, moment)
        if status is not None:
            break
    assert status == 0, status
    said.append(json.loads(out.read_text()))
    sys.__stdout__.write(json.dumps({"reached": reached, "said": said}))


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))

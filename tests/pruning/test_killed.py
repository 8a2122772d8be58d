"""A pruning that is killed goes on, and ends in what an unbroken one ends in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli._run import invoke
from marks import slow
from pruning.test_cli import examples, run  # noqa: F401  (fixtures)
from unbraid.train import _checkpoint

FACTORY = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, h):
        return h + torch.tanh(self.linear(h))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block(), Block()])
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def network():
    return Net(), torch.zeros(2, 8)
"""


@pytest.fixture
def specs(run, tmp_path):  # noqa: F811
    (tmp_path / "model.py").write_text(FACTORY)
    return {"run": str(run), "module": f"{tmp_path / 'model.py'}:network"}


def files(folder):
    """What matters of a folder: content without what tells the time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("metrics.jsonl", "SHA256SUMS")
    }


@pytest.mark.parametrize("kind", ["run", slow("module")])
def test_a_kill_at_any_moment_is_gone_on_from(specs, examples, tmp_path, kind):  # noqa: F811
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    program = Path(__file__).with_name("_killed_prune.py")
    command = [sys.executable, str(program), specs[kind], str(examples), str(killed), str(unbroken)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["reached"]) > 3, "it was never killed"
    assert max(found["reached"]) >= 2  # and epochs that were done were not done again
    said = [{key: value for key, value in one.items() if key != "saved"} for one in found["said"]]
    assert said[0] == said[1]
    assert files(killed) == files(unbroken)
    assert not (killed / ".unfinished").exists()


def stopped(monkeypatch, *arguments):
    """The command, interrupted after its first epoch."""
    write = _checkpoint.write

    def stop(*given):
        write(*given)
        if given[-1]:
            raise KeyboardInterrupt

    monkeypatch.setattr(_checkpoint, "write", stop)
    result = invoke(*arguments)
    monkeypatch.setattr(_checkpoint, "write", write)
    return result


def test_only_the_same_command_goes_on(specs, examples, tmp_path, monkeypatch):  # noqa: F811
    folder = tmp_path / "smaller"
    same = ["prune", specs["module"], "--data", str(examples), "--heal", "2", "--save", str(folder)]
    result = stopped(monkeypatch, *same, "--drop", "1")
    assert (result.status, result.stderr.count("\n")) == (130, 1)
    assert "with --save, the same command goes on" in result.stderr
    for other in (["--drop", "0"], ["--drop", "1", "--lr", "0.5"]):
        result = invoke(*same, *other)
        assert (result.status, result.stderr.count("\n")) == (2, 1)
        assert "was being filled by another command when that ended: its " in result.stderr
    (tmp_path / "model.py").write_text(FACTORY.replace("nn.Linear(8, 3)", "nn.Linear(8, 4)"))
    assert "its model is " in invoke(*same, "--drop", "1").stderr
    (tmp_path / "model.py").write_text(FACTORY)
    assert invoke(*same, "--drop", "1").status == 0
    assert "--save takes a new folder" in invoke(*same, "--drop", "1").stderr


def test_after_a_divergence_another_rate_may_be_tried(specs, examples, tmp_path):  # noqa: F811
    """What the message advises works."""
    folder = tmp_path / "smaller"
    same = ["prune", specs["run"], "--drop", "1", "--data", str(examples), "--heal", "2", "--save", str(folder)]
    result = invoke(*same, "--lr", "1e30")
    assert (result.status, "give a smaller --lr" in result.stderr) == (2, True), result.stderr
    assert not folder.exists()
    assert invoke(*same, "--lr", "0.01").status == 0


def test_a_link_in_the_place_of_unfinished_work_is_something(specs, examples, tmp_path):  # noqa: F811
    """What it shows is neither written nor removed."""
    (tmp_path / "outside" / "letters").mkdir(parents=True)
    (tmp_path / "smaller").mkdir()
    (tmp_path / "smaller" / ".unfinished").symlink_to(tmp_path / "outside")
    result = invoke("prune", specs["run"], "--drop", "1", "--save", str(tmp_path / "smaller"))
    assert (result.status, "--save takes a new folder" in result.stderr) == (2, True), result.stderr
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["letters"]


def test_a_folder_that_cannot_be_written_is_known_before_the_healing(specs, examples, tmp_path):  # noqa: F811
    (tmp_path / "file").touch()
    result = invoke("prune", specs["run"], "--drop", "1", "--heal", "1", "--save", str(tmp_path / "file" / "x"))
    assert (result.status, result.stderr.count("\n")) == (2, 1)
    assert "file/x cannot be written: Not a directory" in result.stderr

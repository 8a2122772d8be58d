"""The command under torchrun, with ranks that are really killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from cli._run import invoke
from unbraid import train

NETWORK = ("--depth", "6", "--width", "40", "--data", "digits")
OPTIONS = (*NETWORK, "--epochs", "24", "--batch-size", "20", "--lr", "0.005", "--json")


def test_a_killed_rank_is_told_and_restarted_and_the_run_goes_on(tmp_path):
    """Kill a rank: the agent starts the same command again, which goes on. Kill another: it says so and ends."""
    folder = tmp_path / "run"
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    program = [sys.executable, "-m", *torchrun, "-m", "unbraid", "train", str(folder), *OPTIONS]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as agent:
        try:
            first = kill_after(agent, folder, epochs=2, which=-1)
            kept = lines(folder)
            second = kill_after(agent, folder, epochs=len(kept) + 2, which=0, but=first)
            stdout, stderr = agent.communicate(timeout=60)
        finally:
            agent.kill()
    assert agent.returncode == 1
    assert stdout == ""
    assert "Signal 9 (SIGKILL) received by PID" in stderr
    assert f"exitcode  : -9 (pid: {second})" in stderr
    found = lines(folder)
    assert found[: len(kept)] == kept  # what was finished was not done again: the times are those of the first start
    assert len(kept) < len(found) < 24
    # And one process finishes what two began.
    finished = invoke("train", str(folder), *OPTIONS, "--resume")
    assert finished.status == 0, finished.stderr
    assert len(json.loads(finished.stdout)["history"]) == 24
    assert lines(folder)[: len(found)] == found
    alone = invoke("train", str(tmp_path / "alone"), *OPTIONS)
    assert alone.status == 0, alone.stderr
    compare(folder, tmp_path / "alone")


def compare(folder, other):
    """The same epochs to rounding; its growth over 1,728 steps is what the bound allows for."""
    broken, whole = train.load(folder), train.load(other)
    for a, b in zip(broken.history, whole.history, strict=True):
        assert abs(a.train_loss - b.train_loss) < 1e-2 * b.train_loss + 1e-4
    ours, theirs = broken.network.state_dict(), whole.network.state_dict()
    assert max(float((ours[n] - theirs[n]).abs().max() / theirs[n].abs().max()) for n in ours) < 1e-2
    assert torch.isfinite(ours["head.weight"]).all()


def kill_after(agent, folder, *, epochs, which, but=None):
    """Kill one of the agent's workers, once so many epochs are kept; its process id."""
    end = time.monotonic() + 90
    while len(lines(folder)) < epochs:
        assert agent.poll() is None, agent.communicate()[1]
        assert time.monotonic() < end, "no progress"
        time.sleep(0.02)
    workers = [pid for pid in children(agent.pid) if pid != but]
    assert len(workers) == 2
    os.kill(workers[which], signal.SIGKILL)
    return workers[which]


def lines(folder):
    """What the folder says of each epoch, whenever it is read."""
    for path in (folder / ".committed" / "metrics.jsonl", folder / "metrics.jsonl"):
        try:
            return [json.loads(line) for line in path.read_text().splitlines()]
        except FileNotFoundError:
            continue
    return []


def children(pid):
    """The worker processes of an agent, the lowest first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = stat.with_name("cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if fields[1] == str(pid) and fields[0] != "Z" and b"unbraid" in command:
            found.append(int(stat.parent.name))
    return sorted(found)

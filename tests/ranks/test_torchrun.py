"""The command under torchrun, with ranks that are really killed."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cli._run import invoke
from unbraid import train
from waiting import HANGS, until

NETWORK = ("--depth", "6", "--width", "40", "--data", "digits")
OPTIONS = (*NETWORK, "--epochs", "24", "--batch-size", "20", "--lr", "0.005", "--json")


@pytest.mark.slow
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
            stdout, stderr = agent.communicate(timeout=HANGS)
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


def kill_after(agent, folder, *, epochs, which, but=None, workers=2):
    """Kill one of the agent's workers, once so many epochs are kept; its process id."""
    until(lambda: len(lines(folder)) >= epochs, agent)
    found = [pid for pid in children(agent.pid) if pid != but]
    assert len(found) == workers
    os.kill(found[which], signal.SIGKILL)
    return found[which]


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


@pytest.mark.slow
def test_a_rank_killed_on_one_of_two_machines(tmp_path):
    """Two agents on the loopback, which count restarts each for itself: the ranks meet again all the same."""
    folder, port = tmp_path / "run", free_port()
    torchrun = ("--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "2", "--rdzv-backend", "c10d")
    where = ("--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "two")
    program = [sys.executable, "-m", "torch.distributed.run", *torchrun, *where, "-m", "unbraid", "train", str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    agents = [subprocess.Popen([*program, *OPTIONS], **pipes) for _ in range(2)]
    try:
        kill_after(agents[1], folder, epochs=2, which=0, workers=1)
        said = [agent.communicate(timeout=HANGS) for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert [agent.returncode for agent in agents] == [0, 0], said
    (printed,) = [stdout for stdout, _ in said if stdout]  # by rank 0 alone, wherever it ran in the end
    # Where rank 0 had ended before the other was killed, both begin again, and it prints once more.
    said, end = [], 0
    while printed[end:].strip():
        found, read = json.JSONDecoder().raw_decode(printed[end:].lstrip())
        said.append(found)
        end += len(printed[end:]) - len(printed[end:].lstrip()) + read
    assert [len(found["history"]) for found in said] == [24] * len(said)


@pytest.mark.slow
def test_verbs_under_torchrun(tmp_path):
    """One that is shared out, one that is not, and one that fails."""
    invoke("train", str(tmp_path / "run"), *NETWORK, "--epochs", "1", "--lr", "0.005")
    arguments = ("lesion", str(tmp_path / "run"), "--batch", "50", "--json")
    shared = under_torchrun(4, *arguments)
    assert shared.returncode == 0, shared.stderr
    alone = json.loads(invoke(*arguments).stdout)
    found = json.loads(shared.stdout)
    assert found["examples"] == alone["examples"] == 359
    assert found["whole"] == pytest.approx(alone["whole"], rel=1e-6)
    for ours, theirs in zip(found["lesions"], alone["lesions"], strict=True):
        assert ours["metric"] == pytest.approx(theirs["metric"], rel=1e-6)
    figure = under_torchrun(2, "figure", "toy")
    assert figure.returncode == 0, figure.stderr
    assert figure.stdout.count("sum of the 16 paths = 12") == 1
    wrong = under_torchrun(2, "lesion", str(tmp_path / "nothing"))
    assert wrong.returncode == 1  # torchrun's own
    assert wrong.stdout == ""
    assert "exitcode  : 2" in wrong.stderr
    assert wrong.stderr.startswith(f'unbraid: "{tmp_path / "nothing"}" is no model')
    assert "cli/_main.py" not in wrong.stderr  # no traceback of ours


def under_torchrun(ranks, *arguments):
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [*program, "-m", "unbraid", *arguments]
    # The number of threads that torchrun takes where nobody says one, and then says so in a banner.
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=alone, capture_output=True, text=True, timeout=HANGS, check=False)


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]

"""One process at a time trains into a folder, and one that is killed is in nobody's way."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from train._small import SHORT, examples, network, same_bits
from unbraid import train
from unbraid.errors import CheckpointError

# Trains into a folder, says so after the first epoch, and waits there.
HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
from train._small import SHORT, examples, network
from unbraid import train

def wait(epoch):
    print("one epoch", flush=True)
    sys.stdin.read()

train.fit(network(), examples(), SHORT, folder=sys.argv[2], on_epoch=wait)
"""
BUSY = r"another process is training into this folder right now\. Wait until it ends"


@pytest.fixture
def held(tmp_path):
    """A folder, and the process that trains into it."""
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLDER, str(Path(__file__).parents[1]), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "one epoch\n"
        yield folder, child
        child.kill()


def test_a_second_process_is_refused_and_a_killed_one_resumes(held):
    folder, child = held
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CheckpointError, match=BUSY):
        train.fit(network(1), examples(), SHORT, folder=folder, resume=True)
    with pytest.raises(CheckpointError, match=BUSY):
        train.fit(network(1), examples(), SHORT, folder=folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert len(train.load(folder).history) == 1  # reading is free
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    resumed = train.fit(network(1), examples(), SHORT, folder=folder, resume=True)
    assert same_bits(resumed.network, train.fit(network(), examples(), SHORT).network)


def test_the_folder_is_let_go_of_after_a_run_and_after_an_error(tmp_path):
    def stop(epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.fit(network(), examples(), SHORT, folder=tmp_path, on_epoch=stop)
    train.fit(network(), examples(), SHORT, folder=tmp_path, resume=True)
    train.fit(network(), examples(), SHORT, folder=tmp_path, resume=True)


def test_a_folder_of_several_networks_is_held_too(held, tmp_path):
    folder, _ = held
    for name in ("config.json", "SHA256SUMS"):
        (folder / name).unlink()  # as if the other process had not written yet
    with pytest.raises(CheckpointError, match=BUSY):
        train.train_many(
            [network(0, stochastic_depth=0.0), network(1, stochastic_depth=0.0)],
            examples(),
            SHORT,
            seeds=[0, 1],
            folders=[tmp_path / "made", folder],
        )

"""Runs that are really killed, in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

from train._small import examples, network, same_bits
from unbraid import train
from unbraid.train import Recipe
from waiting import HANGS


def victims(how, folder):
    program = [sys.executable, str(Path(__file__).with_name("_killed.py")), how, str(folder)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_killed_at_random_moments_ends_with_the_same_bits(tmp_path):
    reached = victims("random", tmp_path)
    assert len(reached) > 3  # killed three times and more after its first checkpoint
    assert reached == sorted(reached)  # nothing that was finished is lost
    recipe = Recipe(epochs=12, batch_size=10, lr=0.01, optimizer="adamw")
    unbroken = train.fit(network(), examples(), recipe, seed=3)
    broken = train.load(tmp_path)
    assert same_bits(broken.network, unbroken.network)
    assert [e.train_loss for e in broken.history] == [e.train_loss for e in unbroken.history]
    assert [e.test_error for e in broken.history] == [e.test_error for e in unbroken.history]


def test_a_kill_at_any_touch_of_the_folder_leaves_the_last_or_the_next_epoch(tmp_path):
    """One by one: each file opened, moved or removed while a checkpoint is read and the next is written."""
    left = victims("every", tmp_path)
    assert len(left) > 20
    assert set(left) == {1, 2}
    assert left == sorted(left)  # one moment at which the new epoch counts, and no way back

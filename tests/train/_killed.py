"""Run as a program by the tests: train in child processes that are really killed, and say what is left.

    python _killed.py random FOLDER   kill at random moments and resume, until a run gets through
    python _killed.py every FOLDER    kill at each touch of the file system during one checkpoint, one by one

Torch is imported once; each victim is a fork.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from touches import die_at
from train._small import examples, network, same_bits
from unbraid import train
from unbraid.train import Recipe

LONG = Recipe(epochs=12, batch_size=10, lr=0.01, optimizer="adamw")
SHORT = replace(LONG, epochs=2)


def forked(victim):
    """The process id of a fork that does what `victim` does and ends."""
    child = os.fork()
    if child == 0:
        victim()
        os._exit(0)
    return child


def killed_at_random(folder, epoch_seconds):
    """Kill, resume, kill, resume ... and say which epoch was safe after each."""
    draw = random.Random(0)
    data = examples()
    reached, patience = (
        [0],
        1.0,
    )  # which grows while no epoch gets done, so that a slow or busy machine gets through too
    for _ in range(200):

        def victim():
            train.fit(network(), data, LONG, seed=3, folder=folder, resume=True)

        child = forked(victim)
        time.sleep(patience * epoch_seconds * draw.uniform(0.5, 5))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if (folder / "config.json").exists() or (folder / ".committed").exists():
            done = len(train.load(folder).history)  # readable after each kill
            patience = 1.0 if done > reached[-1] else patience * 1.4
            reached.append(done)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            break
    else:
        sys.exit("no run got through")
    sys.stdout.write(json.dumps(reached[1:]))


def killed_at_every_touch(folder):
    """For n = 1, 2, ...: resume after one epoch for the second, and die at the n-th touch of the folder."""
    data = examples()
    pristine = folder / "pristine"
    with contextlib.suppress(EnoughError):
        train.fit(network(), data, SHORT, seed=3, folder=pristine, on_epoch=stop_after_first)
    whole = train.fit(network(), data, SHORT, seed=3).network
    left = []
    for n in range(1, 1000):
        here = folder / f"{n}"
        copy(pristine, here)
        child = forked(lambda n=n, here=here: resume_and_die(data, here, n))
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        left.append(len(train.load(here).history))
        if n % 5 == 0:  # and the wreck carries on to the bits of a run that never stopped
            resumed = train.fit(network(), data, SHORT, seed=3, folder=here, resume=True)
            assert same_bits(resumed.network, whole), n
    sys.stdout.write(json.dumps(left))


class EnoughError(Exception):
    pass


def stop_after_first(epoch):
    raise EnoughError


def copy(source, target):
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


def resume_and_die(data, folder, n):
    die_at(folder, n)
    try:
        train.fit(network(), data, SHORT, seed=3, folder=folder, resume=True, on_epoch=stop_after_first)
    except EnoughError:
        os._exit(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    # The first step of a process imports for two seconds; done here, the victims do not have to.
    train.fit(network(), examples(), SHORT)
    how, where = sys.argv[1], Path(sys.argv[2])
    if how == "every":
        killed_at_every_touch(where)
    else:
        # Kills must fall between epochs and within them on slow machines as on fast ones.
        killed_at_random(where, train.fit(network(), examples(), SHORT).history[-1].seconds)

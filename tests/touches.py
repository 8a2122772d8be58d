"""Processes that are killed at a moment that is chosen."""

import os
import signal
import sys

EVENTS = {
    "open",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.remove",
    "os.scandir",
    "os.listdir",
    "shutil.rmtree",
}


def die_at(folder, n):
    """From now on, kill this process when it touches the folder, or what is in it, for the n-th time."""
    touches = 0

    def hook(event, arguments):
        nonlocal touches
        if event in EVENTS and str(folder) in " ".join(map(str, arguments)):
            touches += 1
            if touches == n:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)

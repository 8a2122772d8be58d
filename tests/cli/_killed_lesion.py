"""Run as a program by the tests: kill `unbraid lesion` at random moments until one gets through, and print its result.

    python _killed_lesion.py RUN KEPT [--sets pairs]

Torch is imported once; each victim is a fork.
"""

import json
import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path

import torch

from unbraid.cli import main

BATCH = ["--batch", "25", "--examples", "500", "--json"]


def kept(path):
    if not path.exists():
        return []
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT asked, result FROM runs ORDER BY number").fetchall()
    except sqlite3.OperationalError:  # killed before the tables were made
        return []
    finally:
        connection.close()


def killed_at_random(arguments, file, seconds):
    """Kill and start again; after each kill, what had been kept must still be, untouched."""
    draw, last, reached = random.Random(1), [], []
    patience = 1.0  # grows while nothing gets done, so that a slow or busy machine gets through too
    for _ in range(200):
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os._exit(main([*arguments, "--keep", str(file)]))
        time.sleep(seconds * patience * draw.uniform(0.3, 0.8))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        rows = kept(file)
        assert rows[: len(last)] == last, "a finished batch was lost or repeated"
        patience = 1.0 if len(rows) > len(last) else patience * 1.3
        last = rows
        reached.append(len(rows))
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0, status
            return reached
    sys.exit("no lesion got through")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run, file, rest = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    arguments = ["lesion", run, *BATCH, *rest]
    start = time.perf_counter()
    assert main(arguments) == 0  # unbroken: its result is on stdout
    sys.stderr.write(json.dumps(killed_at_random(arguments, file, time.perf_counter() - start)))

"""Run as a program by the tests: kill sweeps at random moments until one gets through, and say what was kept when.

    python _killed_sweep.py UNBROKEN.toml KILLED.toml

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


def kept(path):
    """Number and content of each row."""
    if not path.exists():
        return []
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT number, asked, result, finished FROM runs ORDER BY number").fetchall()
    except sqlite3.OperationalError:  # killed before the tables were made
        return []
    finally:
        connection.close()


def killed_at_random(file, seconds):
    """Kill and start again; after each kill, what had been kept must still be, untouched."""
    draw, database, last, reached = random.Random(1), file.with_suffix(".sqlite"), [], []
    patience = 1.0  # grows while nothing gets done, so that a slow or busy machine gets through too
    for _ in range(100):
        child = os.fork()
        if child == 0:
            os._exit(main(["sweep", str(file), "--together", "2", "--json"]))
        time.sleep(seconds * patience * draw.uniform(0.01, 0.06))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        rows = kept(database)
        assert rows[: len(last)] == last, "a finished run was lost or repeated"
        patience = 1.0 if len(rows) > len(last) else patience * 1.4
        last = rows
        reached.append(len(rows))
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0, status
            return reached
    sys.exit("no sweep got through")


if __name__ == "__main__":
    torch.set_num_threads(1)
    whole, broken = Path(sys.argv[1]), Path(sys.argv[2])
    # An unbroken sweep first: it imports what victims then do not have to, and says how long one takes.
    start = time.perf_counter()
    assert main(["sweep", str(whole), "--together", "2", "--json"]) == 0
    sys.stderr.write(json.dumps(killed_at_random(broken, time.perf_counter() - start)))

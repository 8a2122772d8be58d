"""Run as a program by the tests: kill a study at random moments until it gets through.

python _killed_rows.py FILE KILLS
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "studies"))

from _study import Rows, grid

WANTED = grid(depth=[1, 2, 3, 4], seed=[0, 1, 2])


def work(row):
    """Something that takes a while and depends on the row alone."""
    draw = random.Random(str(row))
    total = 0.0
    for _ in range(100_000):
        total += draw.random()
    return {"error": total}


def kept(file):
    return json.loads(file.read_text()) if file.exists() else []


def main(file, kills):
    draw, last, killed = random.Random(2), [], 0
    while True:
        child = os.fork()
        if child == 0:
            Rows(file, "depth", "seed").run(WANTED, work, lambda _: None)
            os._exit(0)
        if killed < kills:
            time.sleep(draw.uniform(0.002, 0.08))
            os.kill(child, signal.SIGKILL)
            killed += 1
        _, status = os.waitpid(child, 0)
        rows = kept(file)  # whole JSON at every moment, or it raises
        assert rows[: len(last)] == last, "a finished run was lost or repeated"
        last = rows
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            if len(rows) == len(WANTED):
                return killed


if __name__ == "__main__":
    sys.stdout.write(str(main(Path(sys.argv[1]), int(sys.argv[2]))))

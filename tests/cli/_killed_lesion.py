"""Run as a program by the tests: kill `unbraid lesion` at random moments until one gets through, and print its result.

python _killed_lesion.py RUN KEPT [--sets pairs]
"""

import json
import sys
import time
from pathlib import Path

import torch
from _killing import killed_at_random

from unbraid.cli import main

BATCH = ["--batch", "25", "--examples", "500", "--json"]

if __name__ == "__main__":
    torch.set_num_threads(1)
    run, file, rest = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    arguments = ["lesion", run, *BATCH, *rest]
    start = time.perf_counter()
    assert main(arguments) == 0  # unbroken: its result is on stdout
    taken = time.perf_counter() - start
    reached = killed_at_random([*arguments, "--resume", str(file)], file, (0.02 * taken, 0.15 * taken))
    sys.stderr.write(json.dumps(reached))

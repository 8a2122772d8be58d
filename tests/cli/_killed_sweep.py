"""Run as a program by the tests: kill sweeps at random moments until one gets through, and say what was kept when.

python _killed_sweep.py UNBROKEN.toml KILLED.toml
"""

import json
import sys
import time
from pathlib import Path

import torch
from _killing import killed_at_random

from unbraid.cli import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    whole, broken = Path(sys.argv[1]), Path(sys.argv[2])
    # An unbroken sweep first: it imports what victims then do not have to, and says how long one takes.
    start = time.perf_counter()
    assert main(["sweep", str(whole), "--together", "2", "--json"]) == 0
    taken = time.perf_counter() - start
    arguments = ["sweep", str(broken), "--together", "2", "--json"]
    reached = killed_at_random(arguments, broken.with_suffix(".sqlite"), (0.01 * taken, 0.06 * taken))
    sys.stderr.write(json.dumps(reached))

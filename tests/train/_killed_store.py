"""Run as a program by the tests: kill writers of a store, and say what they said and what is there.

python _killed_store.py FILE
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from train._small import examples
from unbraid.train import Store


def write(path, data, pipe):
    """Add three runs at a time, for ever, and say after each time that they are kept."""
    with Store(path, job="test", data=data) as store:
        while True:
            start = len(store)
            store.add([({"number": start + n}, {"text": "x" * 3000}) for n in range(3)])
            os.write(pipe, b"%d\n" % (start // 3))


def main(path):
    data, draw, said = examples(), random.Random(0), []
    for _ in range(12):
        read, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            write(path, data, write_end)
        os.close(write_end)
        time.sleep(draw.uniform(0.02, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(read) as lines:
            said += [int(line) for line in lines]
    with Store(path, job="test", data=data) as store:
        there = [number for number in range(len(store) + 9) if store.result({"number": number})]
    sys.stdout.write(json.dumps([said, there]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

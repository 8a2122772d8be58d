"""Run as a program: save a form over another, and die at the n-th touch of the folder, for n = 1, 2, ...

    python _killed_form.py FOLDER

It prints which of the two is read after each kill. Torch is imported once; each victim is a fork.
"""

import json
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from touches import die_at
from unbraid import nn, trace
from unbraid.form import load

X = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))


def main(folder):
    torch.set_num_threads(1)
    # Other weights and another graph, so that a mixture would be seen.
    old, new = (trace(nn.mlp(depth=depth, width=20, norm=None).eval(), X) for depth in (2, 3))
    outputs = {"old": old(X), "new": new(X)}
    found = []
    for n in range(1, 1000):
        here = folder / str(n)
        old.save(here)
        child = os.fork()
        if child == 0:
            die_at(here, n)
            new.save(here)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        read = load(here)(X)
        found.append(next(name for name, output in outputs.items() if read.equal(output)))
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            break
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

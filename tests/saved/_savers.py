"""Run as a program: save two forms into one folder in turn, until standard input ends.

    python _savers.py FOLDER

The forms have equal shapes, names and sizes of files, so that only a check of contents can tell a mixture.
"""

import sys
import threading
from pathlib import Path

import torch

import unbraid

X = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))


class Net(torch.nn.Module):
    """One block, added or subtracted: two graphs for the same weights."""

    def __init__(self, seed: int, act: str) -> None:
        super().__init__()
        self.act = act
        self.weight = torch.nn.Parameter(torch.randn(10, 10, generator=torch.Generator().manual_seed(seed)))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h + getattr(torch, self.act)(h @ self.weight) @ self.weight


def forms() -> list[unbraid.ResidualForm]:
    return [unbraid.trace(Net(seed, act), X) for seed, act in ((0, "sin"), (1, "cos"))]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    ends = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ends.set()), daemon=True).start()
    saved, pair = 0, forms()
    while not ends.is_set():
        pair[saved % 2].save(folder)
        saved += 1
        if saved == 2:
            sys.stdout.write("both\n")
            sys.stdout.flush()
    sys.stdout.write(f"{saved}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

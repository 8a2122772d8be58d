"""Run as a program: take a network apart whose weights stay in FOLDER, write the numbers and the peak of memory.

python _larger.py FOLDER OUT DEPTH WIDTH
"""

import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

import unbraid

CALL = torch.randn(4, 40, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([1, 2, 3, 4])


def network(depth: int, width: int) -> torch.nn.Module:
    return unbraid.nn.mlp(depth=depth, width=width, norm=None, scale="1/sqrt(K)").eval()


def numbers(form: unbraid.ResidualForm) -> dict[str, torch.Tensor]:
    """What is compared: terms, attribution, a spectrum, and lesions."""
    study = unbraid.lesion(form, [(CALL, LABELS)], cross_entropy)
    return {
        "terms": unbraid.unravel(form, CALL).values,
        "attribution": unbraid.attribute(form, CALL, target=LABELS).values,
        "spectrum": unbraid.gradient_spectrum(form, CALL, target=1).gradients,
        "lesion": torch.tensor([study.whole, *study.metrics]),
    }


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def main(folder: str, out: str, depth: int, width: int) -> None:
    torch.set_num_threads(1)
    numbers(unbraid.trace(network(2, 8), CALL))  # the libraries with all that they import
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    with unbraid.empty_weights():
        empty = network(depth, width)
    form = unbraid.trace(empty, CALL[:2], device="meta").with_weights(folder, stream=True)
    found = numbers(form)
    torch.save({**found, "peak": torch.tensor(resident("VmHWM") - before)}, out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

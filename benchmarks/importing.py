"""How long `import unbraid` takes beyond torch's own import, in processes of their own.

python benchmarks/importing.py
"""

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from _rows import keep

RESULTS = Path(__file__).parent / "results" / "importing.json"
CODE = """
import time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import unbraid
print(middle - start, time.perf_counter() - middle)
"""


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 15,
    quick: Annotated[bool, typer.Option("--quick", help="Three rounds.")] = False,
    out: Annotated[Path, typer.Option(help="Where results are kept.")] = RESULTS,
) -> None:
    times = []
    for _ in range(3 if quick else rounds):
        said = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout
        times.append([float(part) for part in said.split()])
    torchs, own = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"import torch {torchs:.2f} s; import unbraid after it {own:.3f} s (bar 0.3 s), medians of {len(times)}")
    rows = [
        {"case": "import", "quantity": "unbraid after torch, seconds", "value": own, "bar": "≤ 0.3", "torch s": torchs},
        {"case": "import", "quantity": "unbraid / torch", "value": own / torchs, "bar": ""},
    ]
    keep(out, rows, "cpu")


if __name__ == "__main__":
    typer.run(main)

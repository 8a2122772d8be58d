"""Peak memory of one training step against depth, with and without activation checkpointing.

    python benchmarks/checkpointing.py

A network `act linear +` of width 64 without a norm, 2,048 examples. Memory is the peak above what is resident before
the step, parameters and gradients included in the latter, measured by the kernel in a child process for each (VmHWM
after a reset through /proc/self/clear_refs). The exponent of its growth is fitted between the depths; the bar is √K.
"""

import json
import math
import statistics
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

import _libraries  # noqa: F401
from _memory import from_now, in_child, resident
from _rows import Row, keep
from unbraid import nn

RESULTS = Path(__file__).parent / "results" / "checkpointing.json"
WIDTH, BATCH = 64, 2048
app = typer.Typer(add_completion=False)


@app.command()
def main(
    depths: Annotated[str, typer.Option(help="Numbers of blocks, with commas between.")] = "60,250,1000",
    child: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure, print and keep."""
    if child:
        depth, on = child.split(",")
        print(json.dumps(step(int(depth), on == "with")))
        return
    counts = [int(depth) for depth in depths.split(",")]
    found = {
        on: [
            {
                "bytes": in_child(__file__, "--child", f"{k},{on}")["bytes"],
                "seconds": in_child(__file__, "--child", f"{k},{on}", plain=False)["seconds"],
            }
            for k in counts
        ]
        for on in ("without", "with")
    }
    rows: list[Row] = []
    print(f"{'blocks':>8} {'without':>10} {'with':>10} {'time with / without':>20}")
    for k, plain, saved in zip(counts, found["without"], found["with"], strict=True):
        ratio = saved["seconds"] / plain["seconds"]
        print(f"{k:8} {plain['bytes'] / 1e6:7.0f} MB {saved['bytes'] / 1e6:7.0f} MB {ratio:20.2f}")
        rows.append(row(f"K={k}: peak memory with / without", saved["bytes"] / plain["bytes"]))
        rows.append(row(f"K={k}: time with / without", ratio))
    for on, bar in (("without", ""), ("with", "≤ 0.5")):
        slope = growth(counts, [measured["bytes"] for measured in found[on]])
        print(f"{on} checkpointing the memory grows as K^{slope:.2f}  {bar}")
        rows.append(row(f"{on}: exponent of the memory in K", slope, bar))
    keep(RESULTS, [{**r, "measured": found, "depths": counts} for r in rows], "cpu")


def step(depth: int, on: bool) -> dict[str, float]:
    """One step forward and back, its gradients' memory there before."""
    generator = torch.Generator().manual_seed(0)
    network = nn.mlp(depth=depth, width=WIDTH, norm=None, scale="1/sqrt(K)", generator=generator).train()
    network.checkpointing = on
    x = torch.randn(BATCH, 40, generator=generator)
    network(x[:2]).sum().backward()
    network.zero_grad(set_to_none=False)
    before = from_now()
    network(x).square().mean().backward()
    most = resident("VmHWM") - before
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        network(x).square().mean().backward()
        seconds.append(time.perf_counter() - start)
    return {"bytes": most, "seconds": statistics.median(seconds)}


def growth(depths: list[int], sizes: list[float]) -> float:
    """The exponent p of size = c K^p, fitted."""
    return statistics.linear_regression([math.log(k) for k in depths], [math.log(size) for size in sizes]).slope


def row(quantity: str, value: float, bar: str = "") -> Row:
    return {"case": f"act linear +, width {WIDTH}, {BATCH} examples", "quantity": quantity, "value": value, "bar": bar}


if __name__ == "__main__":
    app()

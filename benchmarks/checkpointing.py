"""Peak memory of one training step against depth, with and without activation checkpointing.

    python benchmarks/checkpointing.py

A network `act linear +` of width 64 without a norm, 2,048 examples. Memory is the peak above what is resident before
the step, parameters and gradients included in the latter, measured by the kernel in a child process for each (VmHWM
after a reset through /proc/self/clear_refs). Times are medians of steps with and without, taken in turn. The exponent
of the memory's growth is fitted between the depths; the bar is √K.
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
        depth, what = child.split(",")
        print(json.dumps(times(int(depth)) if what == "times" else {"bytes": peak(int(depth), what == "with")}))
        return
    counts = [int(depth) for depth in depths.split(",")]
    peaks = {on: [in_child(__file__, "--child", f"{k},{on}")["bytes"] for k in counts] for on in ("without", "with")}
    seconds = [in_child(__file__, "--child", f"{k},times", plain=False) for k in counts]
    rows: list[Row] = []
    print(f"{'blocks':>8} {'without':>10} {'with':>10} {'time with / without':>20}")
    for k, plain, saved, taken in zip(counts, peaks["without"], peaks["with"], seconds, strict=True):
        ratio = taken["with"] / taken["without"]
        print(f"{k:8} {plain / 1e6:7.0f} MB {saved / 1e6:7.0f} MB {ratio:20.2f}")
        rows.append(row(f"K={k}: peak memory with / without", saved / plain))
        rows.append(row(f"K={k}: time with / without", ratio))
    for on, bar in (("without", ""), ("with", "≤ 0.5")):
        slope = growth(counts, peaks[on])
        print(f"{on} checkpointing the memory grows as K^{slope:.2f}  {bar}")
        rows.append(row(f"{on}: exponent of the memory in K", slope, bar))
    keep(RESULTS, [{**r, "bytes": peaks, "seconds": seconds, "depths": counts} for r in rows], "cpu")


def made(depth: int) -> tuple[torch.nn.Module, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    network = nn.mlp(depth=depth, width=WIDTH, norm=None, scale="1/sqrt(K)", generator=generator).train()
    return network, torch.randn(BATCH, 40, generator=generator)


def step(network: torch.nn.Module, x: torch.Tensor) -> None:
    network(x).square().mean().backward()


def peak(depth: int, on: bool) -> int:
    """Bytes of one step forward and back above what was there before, its gradients' memory included."""
    network, x = made(depth)
    network.checkpointing = on
    step(network, x[:2])
    network.zero_grad(set_to_none=False)
    before = from_now()
    step(network, x)
    return resident("VmHWM") - before


def times(depth: int) -> dict[str, float]:
    """Median seconds of a step with and without, taken in turn."""
    network, x = made(depth)
    found: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(7):
        for on, seconds in found.items():
            network.checkpointing = on == "with"
            start = time.perf_counter()
            step(network, x)
            seconds.append(time.perf_counter() - start)
    return {on: statistics.median(seconds[1:]) for on, seconds in found.items()}


def growth(depths: list[int], sizes: list[float]) -> float:
    """The exponent p of size = c K^p, fitted."""
    return statistics.linear_regression([math.log(k) for k in depths], [math.log(size) for size in sizes]).slope


def row(quantity: str, value: float, bar: str = "") -> Row:
    return {"case": f"act linear +, width {WIDTH}, {BATCH} examples", "quantity": quantity, "value": value, "bar": bar}


if __name__ == "__main__":
    app()

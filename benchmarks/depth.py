"""Test error by depth on MNIST-1D: plain against residual networks of the same layers.

    python benchmarks/depth.py                  the table of the README: 27 runs of 40 epochs
    python benchmarks/depth.py --epochs 2       a quick look

Blocks are `act linear +` of width 100, without a norm, He uniform weights; SGD with momentum 0.9 and a
learning rate of 0.05, halved five times, in batches of 100. A plain network is the residual one of the same
seed, so of the same weights, without its skips. Finished runs are kept in the JSON file: a second call goes
on where the first was stopped.
"""

import json
import os
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import Progress

from unbraid import data, nn, train

NETWORKS = {"plain": 1.0, "residual, scale 1/√K": "1/sqrt(K)", "residual, scale 1": 1.0}
RESULTS = Path(__file__).parent / "results" / "depth.json"
Row = dict[str, object]


def one_run(name: str, depth: int, seed: int, epochs: int, examples: data.Dataset) -> Row:
    """Train one network and say how it ended."""
    generator = torch.Generator().manual_seed(seed)
    residual = nn.mlp(
        inputs=40, classes=10, width=100, depth=depth, norm=None, scale=NETWORKS[name], generator=generator
    )
    network = residual.plain() if name == "plain" else residual
    start = time.perf_counter()
    run = train.fit(network, examples, train.Recipe(epochs=epochs), seed=seed, device="cpu")
    result = run.to_dict()
    return {
        "network": name,
        "depth": depth,
        "seed": seed,
        "epochs": epochs,
        "test_error": result["test_error"],
        "diverged": run.diverged,
        "seconds": round(time.perf_counter() - start, 2),
        # The first epoch is left out: it warms up.
        "examples_per_second": _speed(run.history[1:], len(examples.train)),
    }


def _speed(history: tuple[train.Epoch, ...], examples: int) -> int | None:
    return round(examples / statistics.median(epoch.seconds for epoch in history)) if history else None


def cell(runs: list[Row]) -> str:
    """Median and range of the test error in %, and how many runs diverged."""
    errors = [float(str(run["test_error"])) for run in runs if run["test_error"] is not None]
    diverged = len(runs) - len(errors)
    if not errors:
        return f"diverges ({diverged} of {len(runs)})" if runs else "—"
    text = f"{statistics.median(errors):.1f} ({min(errors):.1f} to {max(errors):.1f})"
    return f"{text}, {diverged} of {len(runs)} diverge" if diverged else text


def markdown(runs: list[Row], depths: list[int]) -> str:
    """The table, ready for a README."""
    lines = ["| depth | " + " | ".join(NETWORKS) + " |", "|---:|" + "---|" * len(NETWORKS)]
    for depth in depths:
        of_depth = [run for run in runs if run["depth"] == depth]
        cells = [cell([run for run in of_depth if run["network"] == name]) for name in NETWORKS]
        lines.append(f"| {depth} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def keep(path: Path, runs: list[Row]) -> None:
    """Replace the JSON file in one step, so that a kill leaves the last good one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": str(torch.__version__),
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"machine": machine, "runs": runs}, indent=1, ensure_ascii=False) + "\n")
    part.replace(path)


def main(
    depths: Annotated[str, typer.Option(help="Numbers of blocks, with commas between.")] = "10,20,40",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 0.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the 4,000 examples.")] = 40,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once, of one thread each.")] = os.cpu_count() or 1,
    out: Annotated[Path, typer.Option(help="Where results are kept.")] = RESULTS,
) -> None:
    """Train plain and residual networks of several depths and print their test errors."""
    wanted = [
        (name, depth, seed, epochs)
        for depth in map(int, depths.split(","))
        for seed in range(seeds)
        for name in NETWORKS
    ]
    runs: list[Row] = json.loads(out.read_text())["runs"] if out.exists() else []
    done = {key(run) for run in runs}
    examples = data.mnist1d()
    # One thread each: matrices of 100 by 100 are too small to share, and two runs fill two cores.
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))
    with pool, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("networks", total=len(wanted), completed=len(done & set(wanted)))
        futures = [pool.submit(one_run, *run, examples) for run in wanted if run not in done]
        for future in as_completed(futures):
            runs.append(future.result())
            keep(out, runs)
            progress.advance(task)
    shown = [run for run in runs if key(run) in set(wanted)]
    print("Test error on MNIST-1D in %: median and range over", seeds, "seeds,", epochs, "epochs\n")
    print(markdown(shown, [int(depth) for depth in depths.split(",")]))
    speeds = [
        (run["depth"], run["examples_per_second"])
        for run in shown
        if run["examples_per_second"] and run["network"] == "residual, scale 1/√K"
    ]
    print(f"\nExamples per second of one residual run (one thread, tests included), {jobs} at once:")
    for depth in map(int, depths.split(",")):
        of_depth = [int(str(speed)) for at, speed in speeds if at == depth]
        print(f"  depth {depth}: {statistics.median(of_depth):,.0f}" if of_depth else f"  depth {depth}: —")


def key(run: Row) -> tuple[str, int, int, int]:
    """What tells one run from another."""
    return str(run["network"]), int(str(run["depth"])), int(str(run["seed"])), int(str(run["epochs"]))


if __name__ == "__main__":
    typer.run(main)

"""Many networks at once against one after the other: wall time of one epoch of all.

    python benchmarks/many.py             32 networks of 20 blocks of width 100 on MNIST-1D, batches of 100
    python benchmarks/many.py --quick     8 networks, once

One after the other is timed with one thread and with all; the faster counts. The two ways take turns, so that a
machine that is busy for a while is busy for both; what counts is the median of their ratios. Results go to
results/many.json, with the day and the machine.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from unbraid import data, nn, train

RESULTS = Path(__file__).parent / "results" / "many.json"
NORMS = (None, "layer", "batch")


@dataclass(frozen=True)
class Setup:
    """What is trained: so many networks, each for one epoch, on a device."""

    networks: int
    norm: str | None
    device: str
    examples: data.Dataset

    def made(self) -> list[nn.ResidualNetwork]:
        """The networks, by seeds."""
        order = "act linear +" if self.norm is None else "norm act linear +"
        generators = (torch.Generator().manual_seed(seed) for seed in range(self.networks))
        return [
            nn.mlp(depth=20, width=100, order=order, norm=self.norm, scale="1/sqrt(K)", generator=generator)
            for generator in generators
        ]

    def alone(self, networks: list[nn.ResidualNetwork]) -> list[train.Run]:
        """One after the other."""
        recipe = train.Recipe(epochs=1)
        return [
            train.fit(network, self.examples, recipe, seed=seed, device=self.device)
            for seed, network in enumerate(networks)
        ]

    def at_once(self, networks: list[nn.ResidualNetwork]) -> list[train.Run]:
        """All together."""
        recipe = train.Recipe(epochs=1)
        return train.train_many(
            networks, self.examples, recipe, seeds=range(len(networks)), together=len(networks), device=self.device
        )


def seconds(way: Callable[[list[nn.ResidualNetwork]], list[train.Run]], setup: Setup, threads: int) -> float:
    """Wall time of one epoch of all networks."""
    torch.set_num_threads(threads)
    networks = setup.made()
    start = time.perf_counter()
    way(networks)
    if setup.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(setup: Setup, rounds: int, cores: int) -> dict[str, object]:
    """Medians over rounds; the ways take turns within a round."""
    few = Setup(2, setup.norm, setup.device, setup.examples)
    for way in (few.alone, few.at_once):  # the first steps of a process import for seconds
        seconds(way, few, cores)
    turns = [
        (
            seconds(setup.alone, setup, 1),
            seconds(setup.alone, setup, cores),
            seconds(setup.at_once, setup, 1),
            seconds(setup.at_once, setup, cores),
        )
        for _ in range(rounds)
    ]
    one, all_threads, once_one, once_all = (statistics.median(column) for column in zip(*turns, strict=True))
    ratios = [min(turn[:2]) / min(turn[2:]) for turn in turns]
    return {
        "device": torch.cuda.get_device_name() if setup.device == "cuda" else "cpu",
        "networks": setup.networks,
        "norm": setup.norm,
        "rounds": rounds,
        "alone_1_thread_s": round(one, 3),
        f"alone_{cores}_threads_s": round(all_threads, 3),
        "at_once_1_thread_s": round(once_one, 3),
        f"at_once_{cores}_threads_s": round(once_all, 3),
        "times": round(statistics.median(ratios), 2),
        "times_least": round(min(ratios), 2),
        "times_most": round(max(ratios), 2),
        "times_1_thread": round(statistics.median(turn[0] / turn[2] for turn in turns), 2),
    }


def main(
    networks: Annotated[int, typer.Option(min=2, help="How many.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="How often each way is timed.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="8 networks, once; nothing is written.")] = False,
    out: Annotated[Path, typer.Option(help="Where results are kept.")] = RESULTS,
) -> None:
    """Time both ways and print how many times faster all at once is."""
    cores = torch.get_num_threads()
    examples = data.mnist1d()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    count, times = (8, 1) if quick else (networks, rounds)
    setups = [Setup(count, norm, device, examples) for device in devices for norm in (NORMS[:1] if quick else NORMS)]
    rows = [measure(setup, times, cores) for setup in setups]
    table = Table(title=f"{count} networks of 20 blocks of width 100, one epoch of MNIST-1D, in seconds")
    for heading in rows[0]:
        if heading != "rounds":
            table.add_column(heading.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(str(value) for heading, value in row.items() if heading != "rounds"))
    Console(width=160).print(table)
    if quick:
        return
    machine = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": str(torch.__version__),
    }
    part = out.with_suffix(".part")
    part.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1, ensure_ascii=False) + "\n")
    part.replace(out)


if __name__ == "__main__":
    typer.run(main)

"""How time grows: against ranks, and against data, blocks and batch.

    python benchmarks/scaling.py                        every piece of work: 1 and 2 ranks, then the growth on one
    python benchmarks/scaling.py --works lesion,train   some of them
    python benchmarks/scaling.py --quick                small sizes, to see that it works

Against ranks: the same work by one process and by several, connected by Gloo on this machine, one thread each; and by
one process with as many threads. What the ranks find is compared with what one process does. Growth: the exponent p of
time ~ sizeᵖ, fitted by least squares over the logarithms, one size varied and the others at their middle; on one rank
and one thread. Times are medians over repeats. Nothing is asserted about a time.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import typer
from torch.nn.functional import cross_entropy

from _rows import Row, keep
from unbraid import lesion, mean_spectrum, nn, signal, trace, train
from unbraid.data import Dataset

RESULTS = Path(__file__).parent / "results" / "scaling.json"
FEATURES, CLASSES = 64, 10


@dataclass(frozen=True)
class Size:
    """Of one piece of work.

    Attributes:
        data: how many batches.
        blocks: of the network.
        batch: examples of a batch.
        width: of the network.
    """

    data: int = 16
    blocks: int = 16
    batch: int = 128
    width: int = 256

    @property
    def said(self) -> str:
        """For a row."""
        return f"{self.data} batches of {self.batch}, {self.blocks} blocks of width {self.width}"


MIDDLE = Size()
VARIED = {"data": (4, 8, 16, 32), "blocks": (4, 8, 16, 32), "batch": (32, 64, 128, 256)}
Made = Callable[[], list[float]]


def network(size: Size) -> torch.nn.Module:
    return nn.mlp(
        inputs=FEATURES,
        classes=CLASSES,
        width=size.width,
        depth=size.blocks,
        norm="layer",
        scale="1/sqrt(K)",
        generator=torch.Generator().manual_seed(0),
    )


def examples(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return torch.randn(count, FEATURES, generator=generator), labels


def of_form(analysis: Callable[..., Sequence[float]]) -> Callable[[Size], Made]:
    """An analysis of a traced network on batches; the trace is not timed."""

    def make(size: Size) -> Made:
        inputs, labels = examples(size.data * size.batch)
        batches = list(zip(inputs.split(size.batch), labels.split(size.batch), strict=True))
        form = trace(network(size).eval(), inputs[:2])
        return lambda: list(analysis(form, batches))

    return make


def training(size: Size) -> Made:
    """One epoch, with nothing to test but one batch."""
    inputs, labels = examples((size.data + 1) * size.batch)
    zero, one = torch.tensor(0.0), torch.tensor(1.0)
    learn, test = slice(size.batch, None), slice(0, size.batch)
    data = Dataset("noise", inputs[learn], labels[learn], inputs[test], labels[test], CLASSES, zero, one)
    recipe = train.Recipe(epochs=1, batch_size=size.batch, lr=0.01)
    return lambda: [train.fit(network(size), data, recipe).history[0].train_loss]


WORKS: Mapping[str, Callable[[Size], Made]] = {
    "lesion": of_form(lambda form, batches: lesion(form, batches, cross_entropy).metrics),
    "signal": of_form(lambda form, batches: signal(form, batches).sum.variance.tolist()),
    "mean_spectrum": of_form(lambda form, batches: mean_spectrum(form, batches, check=False).norms.tolist()),
    "train": training,
}


def timed(work: Made, repeats: int) -> tuple[float, list[float]]:
    """The median of the seconds, after a first run, and what came of it."""
    given, taken = work(), []
    for _ in range(repeats):
        if dist.is_initialized():
            dist.barrier()
        start = time.perf_counter()
        work()
        if dist.is_initialized():
            dist.barrier()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken), given


def one_rank(
    name: str, size: Size, repeats: int, rank: int, ranks: int, threads: int, store: str
) -> tuple[float, list[float]]:
    torch.set_num_threads(threads)
    if ranks > 1:
        dist.init_process_group("gloo", store=dist.FileStore(store, ranks), rank=rank, world_size=ranks)
    try:
        return timed(WORKS[name](size), repeats)
    finally:
        if ranks > 1:
            dist.destroy_process_group()


def by_ranks(name: str, size: Size, repeats: int, ranks: int, threads: int = 1) -> tuple[float, list[float]]:
    """Seconds and result of the work by so many processes of so many threads each."""
    with tempfile.TemporaryDirectory() as folder, get_context("spawn").Pool(ranks) as pool:
        store = str(Path(folder) / "store")
        calls = [(name, size, repeats, rank, ranks, threads, store) for rank in range(ranks)]
        answers = [pool.apply_async(one_rank, call) for call in calls]
        first, *_ = [answer.get() for answer in answers]
        pool.close()
        pool.join()
    return first


def against_ranks(name: str, size: Size, repeats: int, most: int) -> list[Row]:
    alone, given = by_ranks(name, size, repeats, 1)
    rows = []
    for ranks in range(2, most + 1):
        seconds, found = by_ranks(name, size, repeats, ranks)
        threaded, _ = by_ranks(name, size, repeats, 1, threads=ranks)
        apart = max(abs(a - b) for a, b in zip(given, found, strict=True)) / max(map(abs, given))
        case = f"{name}, {size.said}"
        times = {"one rank": alone, f"{ranks} ranks": seconds, f"one rank of {ranks} threads": threaded}
        rows += [
            row(case, f"{ranks} ranks, speed-up", alone / seconds, **times),
            row(case, f"{ranks} threads, speed-up", alone / threaded),
            row(case, f"{ranks} ranks, largest difference, relative", apart),
        ]
    return rows


def growth(name: str, middle: Size, varied: Mapping[str, Sequence[int]], repeats: int) -> list[Row]:
    rows = []
    for what, sizes in varied.items():
        seconds = [timed(WORKS[name](replace(middle, **{what: size})), repeats)[0] for size in sizes]
        found = row(
            f"{name}, {middle.said}", f"exponent of {what} in time, {sizes[0]} to {sizes[-1]}", slope(sizes, seconds)
        )
        found["points"] = {what: list(sizes), "seconds": seconds}
        found["seconds"] = dict(zip(map(str, sizes), seconds, strict=True))
        rows.append(found)
    return rows


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The exponent p of value ~ sizeᵖ by least squares over the logarithms."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    return statistics.linear_regression(x, y).slope


def row(case: str, quantity: str, value: float, **seconds: float) -> Row:
    return {"case": case, "quantity": quantity, "value": value, "seconds": seconds}


def markdown(rows: list[Row]) -> str:
    lines = ["| case | quantity | value | times |", "|---|---|---:|---|"]
    for found in rows:
        times = ", ".join(f"{name}: {seconds:.3g} s" for name, seconds in found["seconds"].items())
        lines.append(f"| {found['case']} | {found['quantity']} | {found['value']:.3g} | {times} |")
    return "\n".join(lines)


def main(
    works: Annotated[str, typer.Option(help=f"With commas between: {', '.join(WORKS)}.")] = ",".join(WORKS),
    ranks: Annotated[int, typer.Option(min=1, help="Processes at most.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each; the median counts.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes and two runs; nothing is kept.")] = False,
    out: Annotated[Path, typer.Option(help="Where results are kept.")] = RESULTS,
) -> None:
    """Measure, print a table and keep the numbers."""
    torch.set_num_threads(1)
    middle = Size(data=4, blocks=4, batch=16, width=32) if quick else MIDDLE
    varied = {what: (size // 2, size, 2 * size) for what, size in asdict(middle).items() if what != "width"}
    rows: list[Row] = []
    for name in works.split(","):
        rows += against_ranks(name, middle, 2 if quick else repeats, ranks)
        rows += growth(name, middle, varied if quick else VARIED, 2 if quick else repeats)
        if not quick:
            keep(out, rows, "cpu")
    print(f"\n{markdown(rows)}\n")


if __name__ == "__main__":
    typer.run(main)

"""What sweeps of lesions cost, as ratios to a loop that makes one lesion after the other in the same run.

    python benchmarks/lesion.py                         every case
    python benchmarks/lesion.py --cases resnet,subsets  some of them
    python benchmarks/lesion.py --device cuda           on a GPU

The loop is what one would write by hand: a hook makes one branch's output zero, and the model runs as a whole; for
subsets, where half of the branches are gone, a plain forward that skips them. Times are medians over repeats, taken in
turn. Peak memory is that of a process of its own for each side, Python and torch included. A ratio is printed beside
its bar; nothing is asserted.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.nn import functional

import _libraries  # noqa: F401
from _rows import Row, keep
from unbraid import ResidualForm, lesion, nn, trace

RESULTS = Path(__file__).parent / "results" / "lesion.json"
Work = Callable[[], Sequence[float]]


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        title: what is lesioned.
        form: of the model.
        batches: the data.
        metric: (output, labels) -> a number.
        sets: which lesions.
        by_hand: the same numbers, lesion by lesion, the whole model's first.
        bar: of the ratio of times.
    """

    title: str
    form: ResidualForm
    batches: Sequence[Any]
    metric: Callable[[Any, Any], Tensor]
    sets: Any
    by_hand: Work
    bar: str

    def swept(self) -> Sequence[float]:
        """All metrics by one sweep, the whole model's first."""
        study = lesion(self.form, self.batches, self.metric, sets=self.sets)
        assert study.stacked
        return [study.whole, *study.metrics]


def cross_entropy(output: Any, labels: Tensor) -> Tensor:
    logits = output if isinstance(output, Tensor) else output.logits
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


@contextmanager
def silent(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """The first output of each of these modules is zero."""

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        return (output[0] * 0, *output[1:]) if isinstance(output, tuple) else output * 0

    handles = [module.register_forward_hook(hook) for module in modules]
    yield
    for handle in handles:
        handle.remove()


def one_by_one(run: Callable[[], Tensor], branches: Sequence[torch.nn.Module], sizes: Sequence[int]) -> Work:
    """The metric of the whole model and without each set of so many branches."""

    def work() -> list[float]:
        found = []
        with torch.no_grad():
            for size in sizes:
                for which in combinations(branches, size):
                    with silent(which):
                        found.append(float(run()))
        return found

    return work


def resnet(device: str) -> Case:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet50", zero_init_last=False).eval().requires_grad_(False).to(device)
    x, labels = torch.randn(8, 3, 128, 128, device=device), torch.randint(1000, (8,), device=device)
    blocks = [block for stage in (1, 2, 3, 4) for block in getattr(model, f"layer{stage}")]
    naive = one_by_one(lambda: cross_entropy(model(x), labels), [block.bn3 for block in blocks], (0, 1))
    title = "ResNet-50 K=16, singles, 8 images 128×128"
    return Case(title, trace(model, x[:2]), [(x, labels)], cross_entropy, "single", naive, "≤ 0.45")


def gpt2(device: str) -> Case:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(use_cache=False)).eval().requires_grad_(False).to(device)
    ids, labels = torch.randint(50257, (2, 2, 64), device=device)
    branches = [branch for block in model.transformer.h for branch in (block.attn, block.mlp)]
    naive = one_by_one(lambda: cross_entropy(model(input_ids=ids), labels), branches, (0, 1))
    form = trace(model, (), {"input_ids": ids})
    title = "GPT-2 small K=24, singles, 2×64 tokens"
    return Case(title, form, [({"input_ids": ids}, labels)], cross_entropy, "single", naive, "≤ 0.6")


def vit(device: str) -> Case:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224").eval().requires_grad_(False).to(device)
    x, labels = torch.randn(4, 3, 224, 224, device=device), torch.randint(1000, (4,), device=device)
    branches = [branch for block in model.blocks for branch in (block.attn, block.mlp)]
    naive = one_by_one(lambda: cross_entropy(model(x), labels), branches, (0, 2))
    title = "ViT-tiny K=24, pairs, 4 images 224×224"
    return Case(title, trace(model, x[:2]), [(x, labels)], cross_entropy, "pairs", naive, "≤ 0.4")


def subsets(device: str) -> Case:
    """All 2^12 subnetworks of the project's own network: `act linear +`, width 100, as trained on MNIST-1D."""
    generator = torch.Generator().manual_seed(0)
    model = nn.mlp(depth=12, norm=None, scale="1/sqrt(K)", generator=generator).eval().requires_grad_(False).to(device)
    x = torch.randn(100, 40, generator=generator).to(device)
    labels = torch.randint(10, (100,), generator=generator).to(device)
    masks = [mask for mask in range(2**12) if mask]
    sets = [tuple(k for k in range(12) if mask >> (11 - k) & 1) for mask in masks]

    def work() -> list[float]:
        found = []
        with torch.no_grad():
            for gone in [(), *sets]:
                h = model.stem(x)
                for number, block in enumerate(model.blocks):
                    if number not in gone:
                        h = block(h)
                found.append(float(cross_entropy(model.head(h), labels)))
        return found

    title = "MLP K=12, all 2^12 subsets, width 100, batch 100"
    return Case(title, trace(model, x), [(x, labels)], cross_entropy, sets, work, "≤ 0.333")


CASES: Mapping[str, Callable[[str], Case]] = {"resnet": resnet, "gpt2": gpt2, "vit": vit, "subsets": subsets}


def times(device: str, repeats: int, **works: Work) -> tuple[dict[str, float], dict[str, Sequence[float]]]:
    """Seconds of each piece of work, the median, the pieces in turn; and what each gives."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    given = {name: work() for name, work in works.items()}
    for _ in range(repeats):
        for name, work in works.items():
            wait(device)
            start = time.perf_counter()
            work()
            wait(device)
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}, given


def wait(device: str) -> None:
    """Until the device is idle."""
    if device == "cuda":
        torch.cuda.synchronize()


def measure(name: str, device: str, repeats: int) -> list[Row]:
    """The ratio of times, how far the numbers are apart, and the ratio of peak memory."""
    case = CASES[name](device)
    seconds, given = times(device, repeats, by_hand=case.by_hand, sweep=case.swept)
    apart = max(abs(a - b) for a, b in zip(given["sweep"], given["by_hand"], strict=True)) / max(given["by_hand"])
    peaks = {side: peak(name, device, side) for side in ("by_hand", "swept")}
    ratio = peaks["swept"] / peaks["by_hand"]
    return [
        row(case.title, "sweep / loop by hand", seconds["sweep"] / seconds["by_hand"], case.bar, **seconds),
        row(case.title, "largest difference, relative", apart, "≤ 1e-5"),
        {**row(case.title, "peak memory, sweep / loop", ratio, "≤ 1.5"), "megabytes": peaks},
    ]


def peak(name: str, device: str, side: str) -> float:
    """The peak memory in megabytes of one side, in a process of its own."""
    with get_context("spawn").Pool(1, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
        return pool.apply(_peak, (name, device, side))


def _peak(name: str, device: str, side: str) -> float:
    case = CASES[name](device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        getattr(case, side)()
        return torch.cuda.max_memory_allocated() / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew, without that of tracing
    getattr(case, side)()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))


def row(case: str, quantity: str, value: float, bar: str = "", **seconds: float) -> Row:
    return {"case": case, "quantity": quantity, "value": value, "bar": bar, "seconds": seconds}


def markdown(rows: list[Row]) -> str:
    lines = ["| case | quantity | value | bar | times, memory |", "|---|---|---:|---|---|"]
    for found in rows:
        facts = [f"{name} {value:.3g} s" for name, value in found["seconds"].items()]
        facts += [f"{name} {value:.0f} MB" for name, value in found.get("megabytes", {}).items()]
        value = f"{found['value']:.3g}"
        lines.append(f"| {found['case']} | {found['quantity']} | {value} | {found['bar']} | {', '.join(facts)} |")
    return "\n".join(lines)


def main(
    cases: Annotated[str, typer.Option(help=f"With commas between: {', '.join(CASES)}.")] = ",".join(CASES),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each side; the median counts.")] = 5,
    threads: Annotated[int, typer.Option(help="Of torch; 0 leaves them as they are.")] = 0,
    out: Annotated[Path, typer.Option(help="Where results are kept.")] = RESULTS,
) -> None:
    """Measure, print a table and keep the numbers."""
    if threads:
        torch.set_num_threads(threads)
    rows: list[Row] = []
    for case in cases.split(","):
        rows += measure(case, device, repeats)
        keep(out, rows, device)
    print(f"On {device}:\n\n{markdown(rows)}\n")


if __name__ == "__main__":
    typer.run(main)

"""What exact path sums cost, as ratios to one forward run and input gradient of the same model in the same run.

    python benchmarks/paths.py                          every case
    python benchmarks/paths.py --cases mlp16,growth     some of them
    python benchmarks/paths.py --device cuda --compile  on a GPU, the plain gradient under torch.compile too

Times are medians over repeats, taken in turn, so that a load from elsewhere meets both sides of a ratio alike. No
parameter asks for a gradient. A ratio is printed beside its bar; nothing is asserted.
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

import _libraries  # noqa: F401
from _densenet_by_hand import densenet_by_hand
from _rows import Row, keep
from unbraid import nn, trace
from unbraid.form import ResidualForm
from unbraid.paths import all_paths, gradient_spectrum, sample_paths

RESULTS = Path(__file__).parent / "results" / "paths.json"
_MOST, _ENOUGH = 100, 2.0  # turns, and seconds after which the least number of turns is enough
Work = Callable[[], object]


@dataclass(frozen=True)
class Bench:
    """How to measure.

    Attributes:
        device: where.
        repeats: how often each side runs at least.
        compiled: compile the plain gradient too.
    """

    device: str
    repeats: int
    compiled: bool = False

    def times(self, **works: Work) -> dict[str, float]:
        """Seconds of each piece of work: the median, the pieces in turn."""
        taken: dict[str, list[float]] = {name: [] for name in works}
        for work in works.values():
            work()
        begin = time.perf_counter()
        for turn in range(_MOST):
            if turn >= self.repeats and time.perf_counter() - begin > _ENOUGH:
                break
            for name, work in works.items():
                taken[name].append(self.once(work))
        return {name: statistics.median(seconds) for name, seconds in taken.items()}

    def once(self, work: Work) -> float:
        """Seconds of one run; of one thread the processor's, which other programs do not lengthen."""
        alone = self.device == "cpu" and torch.get_num_threads() == 1
        clock = time.process_time if alone else time.perf_counter
        self.wait()
        start = clock()
        work()
        self.wait()
        return clock() - start

    def wait(self) -> None:
        """Until the device is idle."""
        if self.device == "cuda":
            torch.cuda.synchronize()


def gradient(model: torch.nn.Module, x: Tensor) -> Work:
    """One forward run and the gradient of class 1 at the input."""

    def work() -> Tensor:
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)[0]

    return work


def mlp(depth: int, width: int, batch: int, device: str) -> tuple[torch.nn.Module, Tensor]:
    """The project's own network, `act linear +`, without a norm."""
    generator = torch.Generator().manual_seed(0)
    network = nn.mlp(depth=depth, width=width, norm=None, scale="1/sqrt(K)", generator=generator)
    x = torch.randn(batch, 40, generator=generator)
    return network.eval().requires_grad_(False).to(device), x.to(device)


def row(case: str, quantity: str, value: float, bar: str = "", **seconds: float) -> Row:
    return {"case": case, "quantity": quantity, "value": value, "bar": bar, "seconds": seconds}


def spectrum(case: str, form: ResidualForm, model: torch.nn.Module, x: Tensor, bar: str, bench: Bench) -> list[Row]:
    """The spectrum without and with its check, in plain gradients."""
    works: dict[str, Work] = {
        "gradient": gradient(model, x),
        "spectrum": partial(gradient_spectrum, form, x, target=1, check=False),
        "checked": partial(gradient_spectrum, form, x, target=1),
    }
    if bench.compiled:
        works["compiled"] = gradient(torch.compile(model), x)
    t = bench.times(**works)
    rows = [
        row(case, "spectrum / gradient", t["spectrum"] / t["gradient"], bar, **t),
        row(case, "check / gradient", (t["checked"] - t["spectrum"]) / t["gradient"], "≈ 1"),
    ]
    if bench.compiled:
        rows.append(row(case, "spectrum / compiled gradient", t["spectrum"] / t["compiled"]))
    return rows


def of_mlp(case: str, depth: int, width: int, batch: int, bar: str, bench: Bench) -> list[Row]:
    model, x = mlp(depth, width, batch, bench.device)
    return spectrum(case, trace(model, x), model, x, bar, bench)


def wide(bench: Bench) -> list[Row]:
    """K = 54, width 512, batch 64: also its rate of matrix products against torch.mm's."""
    case = "MLP K=54, width 512, batch 64"
    model, x = mlp(54, 512, 64, bench.device)
    form = trace(model, x)
    rows = spectrum(case, form, model, x, "≤ 11", bench)
    # Block k's product has k + 1 cotangents of 64 rows each: the same sizes through torch.mm.
    weight = torch.randn(512, 512, device=bench.device)
    stacks = [torch.randn(64 * count, 512, device=bench.device) for count in range(1, 55)]
    t = bench.times(
        products=lambda: [torch.mm(stack, weight) for stack in stacks],
        spectrum=lambda: gradient_spectrum(form, x, target=1, check=False),
    )
    return [*rows, row(case, "rate / torch.mm's", t["products"] / t["spectrum"], "≥ 0.7", **t)]


def narrow(bench: Bench) -> list[Row]:
    return of_mlp("MLP K=54, width 128, batch 8", 54, 128, 8, "≤ 4", bench)


def shallow(bench: Bench) -> list[Row]:
    return of_mlp("MLP K=16, width 128, batch 64", 16, 128, 64, "≤ 4", bench)


def gpt2(bench: Bench) -> list[Row]:
    """GPT-2 small, 2 × 64 tokens: from the embedding on, as ids have no gradient."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(attn_implementation="eager", use_cache=False)
    model = GPT2LMHeadModel(config).eval().requires_grad_(False).to(bench.device)
    ids = torch.randint(config.vocab_size, (2, 64), device=bench.device)
    form = trace(model, (), {"input_ids": ids})

    def plain() -> Tensor:
        leaf = model.transformer.wte(ids).requires_grad_()
        return torch.autograd.grad(model(inputs_embeds=leaf).logits[:, -1, 1].sum(), leaf)[0]

    def exact(check: bool) -> object:
        return gradient_spectrum(form, (), {"input_ids": ids}, target=(63, 1), check=check)

    t = bench.times(gradient=plain, spectrum=partial(exact, False), checked=partial(exact, True))
    case = "GPT-2 small K=24, 2×64 tokens"
    return [
        row(case, "spectrum / gradient", t["spectrum"] / t["gradient"], "≤ 6", **t),
        row(case, "check / gradient", (t["checked"] - t["spectrum"]) / t["gradient"], "≈ 1"),
    ]


def resnet(bench: Bench) -> list[Row]:
    """ResNet-50, 4 images of 128 × 128, also against a loop by hand that knows its blocks."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet50", zero_init_last=False).eval().requires_grad_(False).to(bench.device)
    x = torch.randn(4, 3, 128, 128, device=bench.device)
    form = trace(model, x)
    case = "ResNet-50 K=16, 4 images 128×128"
    rows = spectrum(case, form, model, x, "≤ 7.5", bench)
    t = bench.times(
        by_hand=lambda: resnet_by_hand(model, x), library=partial(gradient_spectrum, form, x, target=1, check=False)
    )
    found, wanted = gradient_spectrum(form, x, target=1, check=False).gradients, resnet_by_hand(model, x)
    apart = float((found - wanted).abs().max() / wanted.abs().max())
    return [
        *rows,
        row(case, "library / loop by hand", t["library"] / t["by_hand"], "≤ 1.1", **t),
        row(case, "library − loop by hand, relative", apart, "≤ 1e-4"),
    ]


def resnet_by_hand(model: Any, x: Tensor) -> Tensor:
    """The same coefficients by the best loop that knows a ResNet: timm's blocks, a cotangent at a time."""
    leaf = x.detach().requires_grad_()
    stem = model.maxpool(model.act1(model.bn1(model.conv1(leaf))))
    tape, h = [], stem.detach()
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        for block in stage:
            into = h.requires_grad_()
            branch = block.act1(block.bn1(block.conv1(into)))
            branch = block.bn3(block.conv3(block.act2(block.bn2(block.conv2(branch)))))
            skip = into if block.downsample is None else block.downsample(into)
            h = torch.relu(skip + branch).detach()
            tape.append((into, skip, branch, h > 0))
    last = h.requires_grad_()
    (g,) = torch.autograd.grad(model.forward_head(last)[:, 1].sum(), last)
    stack = [g]
    for into, skip, branch, live in reversed(tape):
        stack = [live * g for g in stack]
        through = [torch.autograd.grad(branch, into, g, retain_graph=True)[0] for g in stack]
        if skip is not into:
            stack = [torch.autograd.grad(skip, into, g, retain_graph=True)[0] for g in stack]
        stack = [
            stack[m] + through[m - 1] if 0 < m < len(stack) else stack[m] if m == 0 else through[-1]
            for m in range(len(stack) + 1)
        ]
    return torch.stack([torch.autograd.grad(stem, leaf, g, retain_graph=True)[0] for g in stack])


def densenet(bench: Bench) -> list[Row]:
    """DenseNet-121, 58 concatenated skips, small images and larger ones, against a loop that knows its layers."""
    return [*_densenet(2, 64, bench), *_densenet(4, 96, bench)]


def _densenet(images: int, side: int, bench: Bench) -> list[Row]:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("densenet121").eval().requires_grad_(False).to(bench.device)
    x = torch.randn(images, 3, side, side, device=bench.device)
    form = trace(model, x)
    case = f"DenseNet-121 K=58, {images} images {side}×{side}"
    library = partial(gradient_spectrum, form, x, target=1, check=False)
    t = bench.times(by_hand=lambda: densenet_by_hand(model, x), library=library, gradient=gradient(model, x))
    wanted = densenet_by_hand(model, x)
    apart = float((library().gradients - wanted).abs().max() / wanted.abs().max())
    return [
        row(case, "spectrum / gradient", t["library"] / t["gradient"], **t),
        row(case, "library / loop by hand", t["library"] / t["by_hand"], "≤ 1.3"),
        row(case, "library − loop by hand, relative", apart, "≤ 1e-4"),
    ]


def sampling(bench: Bench) -> list[Row]:
    """Veit et al.'s protocol, one path a pass and 100 paths a length, K = 54; timed on fewer paths and scaled up."""
    model, x = mlp(54, 128, 8, bench.device)
    form = trace(model, x)
    few = 55 * 2
    t = bench.times(
        spectrum=partial(gradient_spectrum, form, x, target=1, check=False),
        sampled=partial(sample_paths, form, x, target=1, per_length=2, chunk=1),
        batched=partial(sample_paths, form, x, target=1, per_length=2),
        gradient=gradient(model, x),
    )
    case, scale = "sampling, K=54, width 128, batch 8", 5500
    return [
        row(case, "one gradient a path / spectrum", scale * t["gradient"] / t["spectrum"], "≥ 400", **t),
        row(case, "our sampling, one path a pass / spectrum", scale / few * t["sampled"] / t["spectrum"]),
        row(case, "our sampling, many paths a pass / spectrum", scale / few * t["batched"] / t["spectrum"]),
    ]


def every(bench: Bench) -> list[Row]:
    """All 2^16 paths at width 64, batch 8, in a process of its own for its peak memory."""
    return _apart(_every, bench)


def _every(bench: Bench) -> list[Row]:
    model, x = mlp(16, 64, 8, bench.device)
    form = trace(model, x)
    case = "all 2^16 paths, K=16, width 64, batch 8"
    rows = []
    before = _high_water() / 1e3
    for linearize in ("jacobian", "frozen"):
        work = partial(all_paths, form, x, target=1, linearize=linearize)
        t = bench.times(paths=work, gradient=gradient(model, x))
        rows.append(
            row(f"{case}, {linearize}", "gradients a path / all paths", 2**16 * t["gradient"] / t["paths"], "≥ 75", **t)
        )
    return [*rows, row(case, "peak memory, GB", _high_water() / 1e3, "≤ 1"), row(case, "before it, GB", before)]


def growth(bench: Bench) -> list[Row]:
    """The exponent of K in the spectrum's time and memory, width 128, batch 8."""
    depths = [8, 16, 27, 54, 108]
    seconds, memory = [], []
    for depth in depths:
        model, x = mlp(depth, 128, 64, bench.device)
        form = trace(model, x)
        seconds.append(bench.times(spectrum=partial(gradient_spectrum, form, x, target=1, check=False))["spectrum"])
        memory.append(_apart(_memory, depth, MALLOC_MMAP_THRESHOLD_="65536"))
    rows = [row("growth, width 128, batch 64", "exponent of K in time, 8 to 108", slope(depths, seconds), "≤ 2.1")]
    rows[0]["points"] = {"depths": depths, "seconds": seconds, "megabytes": memory}
    rows.append(row("growth, width 128, batch 64", "exponent of K in memory, 8 to 108", slope(depths, memory), "≤ 1"))
    return rows


def _apart(work: Callable[..., Any], *args: object, **environment: str) -> Any:
    """In a process of its own. glibc's mmap threshold, where it is given, hands back what is let go at once."""
    os.environ.update(environment)
    try:
        with get_context("spawn").Pool(1, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
            return pool.apply(work, args)
    finally:
        for name in environment:
            del os.environ[name]


def _memory(depth: int) -> float:
    """Megabytes that one spectrum adds to the peak of its process."""
    torch.set_num_threads(1)
    model, x = mlp(depth, 128, 512, "cpu")  # large, so that tracing, on few examples, stays below
    form = trace(model, x[:4])
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew, without that of tracing
    before = _high_water()
    gradient_spectrum(form, x, target=1, check=False)
    return max(_high_water() - before, 0.1)


def _high_water() -> float:
    """The peak of resident memory in megabytes since it was last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))


def slope(x: list[int], y: list[float]) -> float:
    """Least squares in the logarithms."""
    a, b = ([math.log(v) for v in values] for values in (x, y))
    return statistics.linear_regression(a, b).slope


CASES: Mapping[str, Callable[[Bench], list[Row]]] = {
    "wide": wide,
    "narrow": narrow,
    "shallow": shallow,
    "gpt2": gpt2,
    "resnet": resnet,
    "densenet": densenet,
    "sampling": sampling,
    "every": every,
    "growth": growth,
}


def markdown(rows: list[Row]) -> str:
    lines = ["| case | quantity | value | bar | times |", "|---|---|---:|---|---|"]
    for found in rows:
        times = ", ".join(f"{name} {1e3 * value:.3g} ms" for name, value in found["seconds"].items())
        lines.append(f"| {found['case']} | {found['quantity']} | {found['value']:.3g} | {found['bar']} | {times} |")
    return "\n".join(lines)


def main(
    cases: Annotated[str, typer.Option(help=f"With commas between: {', '.join(CASES)}.")] = ",".join(CASES),
    device: Annotated[str, typer.Option(help="cpu or cuda; by default cuda where there is one, after cpu.")] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each side at least; the median counts.")] = 5,
    compiled: Annotated[bool, typer.Option("--compile", help="Also against a compiled gradient.")] = False,
    threads: Annotated[int, typer.Option(help="Of torch; 0 leaves them as they are.")] = 0,
    out: Annotated[Path, typer.Option(help="Where results are kept.")] = RESULTS,
) -> None:
    """Measure, print a table and keep the numbers."""
    if threads:
        torch.set_num_threads(threads)
    for where in [device] if device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        rows: list[Row] = []
        for case in cases.split(","):
            rows += CASES[case](Bench(where, repeats, compiled))
            keep(out, rows, where)
        print(f"On {where}:\n\n{markdown(rows)}\n")


if __name__ == "__main__":
    typer.run(main)

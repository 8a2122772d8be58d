"""Training steps a second of `nn.conv2d`, beside the same ResNets written plainly, as timm and torchvision do.

    python benchmarks/throughput.py            ResNet-20 and ResNet-56 on 32 × 32 images, batches of 64
    python benchmarks/throughput.py --quick    ResNet-20, two rounds

A step is forward, loss, backward and SGD with momentum. The two take turns; what counts is the median of their ratios.
Compiled is ours under torch.compile against the plain one without. The plain one writes sums and activations over what
it read, as those libraries do; ours keeps what a hook has seen, and has channels last in memory. Further rows have the
plain one without the first, and with the second.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from _rows import Row, keep
from unbraid import nn as ours

RESULTS = Path(__file__).parent / "results" / "throughput.json"
BATCH = 64


class PlainBlock(nn.Module):
    """conv norm act conv norm + act, the skip padded with zeros where the size changes."""

    def __init__(self, before: int, channels: int, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace
        self.stride = 1 if before == channels else 2
        self.more = channels - before
        self.conv1 = nn.Conv2d(before, channels, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = nn.ReLU(inplace)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of skip and branch, and what follows it."""
        skip = x
        if self.more:
            skip = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.more))
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        if self.inplace:
            x += skip
        else:
            x = x + skip
        return self.act2(x)


class PlainResNet(nn.Module):
    """The CIFAR network of 6n + 2 layers, written out."""

    def __init__(self, layers: int, inplace: bool = True) -> None:
        super().__init__()
        n = (layers - 2) // 6
        sizes = [16] * n + [32] * n + [64] * n
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.act1 = nn.ReLU(inplace)
        self.blocks = nn.Sequential(*(PlainBlock(b, c, inplace) for b, c in zip([16, *sizes], sizes, strict=False)))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes, [batch, 10]."""
        x = self.blocks(self.act1(self.bn1(self.conv1(x))))
        return self.fc(x.mean((2, 3)))


def stepping(network: nn.Module, compiled: bool, device: str) -> Callable[[], None]:
    """A function that takes one training step on the same batch each time."""
    network = network.to(device).train()
    run = torch.compile(network) if compiled else network
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(BATCH, 3, 32, 32, generator=generator).to(device)
    labels = torch.randint(10, (BATCH,), generator=generator).to(device)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(run(inputs), labels).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def ratios(plain: Callable[[], None], other: Callable[[], None], rounds: int, steps: int) -> tuple[float, list[float]]:
    """The median over rounds of plain's time over the other's: how many steps the other takes for one of plain."""
    for way in (plain, other):
        for _ in range(2):
            way()
    found = []
    for turn in range(rounds):
        pair = {}
        for name in ("plain", "other") if turn % 2 else ("other", "plain"):
            start = time.perf_counter()
            for _ in range(steps):
                (plain if name == "plain" else other)()
            pair[name] = time.perf_counter() - start
        found.append(pair["plain"] / pair["other"])
    return statistics.median(found), found


def main(
    quick: Annotated[bool, typer.Option("--quick", help="ResNet-20 alone, two rounds.")] = False,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    compiled: Annotated[bool, typer.Option(help="Also under torch.compile.")] = True,
    out: Annotated[Path, typer.Option(help="Where results are kept.")] = RESULTS,
) -> None:
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows: list[Row] = []
    for layers in (20,) if quick else (20, 56):
        made = ours.conv2d(layers=layers, generator=torch.Generator().manual_seed(0))
        assert sum(p.numel() for p in made.parameters()) == sum(p.numel() for p in PlainResNet(layers).parameters())
        ways = [
            ("eager / plain, eager", "≥ 1.0", True, False, torch.contiguous_format),
            ("eager / plain, eager, nothing in place", "", False, False, torch.contiguous_format),
            ("eager / plain, eager, channels last", "", True, False, torch.channels_last),
        ]
        ways += [("compiled / plain, eager", "≥ 1.2", True, True, torch.contiguous_format)] if compiled else []
        for named, bar, inplace, compile_it, memory in ways:
            plain = stepping(PlainResNet(layers, inplace).to(memory_format=memory), False, device)
            other = stepping(ours.conv2d(layers=layers), compile_it, device)
            value, each = ratios(plain, other, 2 if quick else 9, 2 if quick else 4)
            print(
                f"ResNet-{layers}: steps a second, {named}: {value:.3f} ({min(each):.3f} to {max(each):.3f}; bar {bar})"
            )
            row = {"case": f"ResNet-{layers}, 32×32, batch {BATCH}", "quantity": f"steps a second: {named}"}
            rows.append({**row, "value": value, "bar": bar, "rounds": each})
    keep(out, rows, device)


if __name__ == "__main__":
    typer.run(main)

"""Exploding variance: how the stream grows with depth, and ways to stop it (figure 11.6 of Prince 2023).

    python studies/variance.py             five kinds of network, ten seeds, docs/studies/variance.md and its figures
    python studies/variance.py --quick     two seeds and four blocks, printed only

Untrained networks of width 300, He initialisation, normal inputs; batch norm with the statistics of the batch.
"""

import math
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

import unbraid
import unbraid.nn as unn
from _study import DOCS, Row, Rows, grid, markdown, rewrite, spread
from unbraid import draw
from unbraid.gradients import Signal, signal, theory

WIDTH, SHOWN = 300, (1, 5, 10, 20, 40)
KINDS: dict[str, Row] = {
    "doubling": {"order": "act linear +", "norm": None},
    "1/√2": {},
    "batch norm": {"order": "norm act linear +", "norm": "batch"},
    "1/√K": {"order": "act linear +", "norm": None, "scale": "1/sqrt(K)"},
    "Fixup": {"order": "act linear +", "norm": None, "scale": "zero"},
}


class Halved(nn.Module):
    """(h + f(h)) / √2: the sum of two signals of one variance has that variance again."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator) * math.sqrt(2 / WIDTH))

    def forward(self, h: Tensor) -> Tensor:
        """[batch, width] -> [batch, width]."""
        return (h + h.relu() @ self.weight.T) / math.sqrt(2)


def main(
    seeds: Annotated[int, typer.Option(min=2, help="Networks of each kind.")] = 10,
    depth: Annotated[int, typer.Option(min=2, help="K, the number of blocks.")] = 40,
    quick: Annotated[bool, typer.Option("--quick", help="Two seeds, four blocks, nothing written.")] = False,
    out: Annotated[Path, typer.Option(help="The folder of the page, the rows and the figures.")] = DOCS,
) -> None:
    """Measure every network, then write the table."""
    if quick:
        cells = grid(kind=list(KINDS), depth=[4], seed=[0, 1])
        print(table([{**cell, **measure(cell)} for cell in cells], 4))
        return
    cells = grid(kind=list(KINDS), depth=[depth], seed=range(seeds))
    rows = Rows(out / "variance.json", "kind", "depth", "seed").run(cells, measure)
    if (out / "variance.md").exists():
        rewrite(out / "variance.md", {"table": table(rows, depth)})
    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
    for kind, name in (("doubling", "doubling"), ("batch norm", "batch_norm")):
        cell = {"kind": kind, "depth": depth, "seed": 0}
        found = follow(cell)
        start = stream(cell, found)[0]
        closed = theory.CURVES[kind](depth)[1:]
        expected = [start * v if kind == "doubling" else start + v - 1 for v in closed]
        branch = (found.branch.squared_mean + found.branch.variance).tolist()
        figure = draw.gradients.signal(stream(cell, found)[1:], branch, [math.nan] * depth, expected)
        draw.save(figure, images / f"variance_{name}.svg")
    print(table(rows, depth))


def measure(cell: Row) -> Row:
    """The second moment of the stream after each block, relative to that at the first fork."""
    moments = stream(cell, follow(cell))
    if cell["kind"] == "batch norm":  # which adds one a block, whatever the stream begins with
        return {"moments": [1 + later - moments[0] for later in moments]}
    return {"moments": [later / moments[0] for later in moments]}


def follow(cell: Row) -> Signal:
    """The signal through one network."""
    generator = torch.Generator().manual_seed(cell["seed"])
    x = torch.randn(256, WIDTH, generator=generator)
    model: Any
    if cell["kind"] == "1/√2":
        model = nn.Sequential(*(Halved(generator) for _ in range(cell["depth"])))
    else:
        model = unn.mlp(
            inputs=WIDTH, width=WIDTH, depth=cell["depth"], init="he_normal", generator=generator, **KINDS[cell["kind"]]
        )
    return signal(unbraid.trace(model.train(cell["kind"] == "batch norm"), x), [(x, None)], loss=None)


def stream(cell: Row, found: Signal) -> list[float]:
    """Mean squared plus variance before the first block and after each: He's rule keeps it, not the variance alone.

    After a block is what the next one reads: behind the division by √2, where there is one.
    """
    after = [float(m + v) for m, v in zip(found.skip.squared_mean, found.skip.variance, strict=True)]
    last = float(found.sum.squared_mean[-1] + found.sum.variance[-1])
    return [*after, last / 2 if cell["kind"] == "1/√2" else last]


def table(rows: list[Row], depth: int) -> str:
    """Measured and expected at some depths."""
    shown = [k for k in SHOWN if k <= depth]
    lines = []
    for kind in KINDS:
        closed = theory.CURVES[kind](depth)
        own = [row["moments"] for row in rows if row["kind"] == kind and row["depth"] == depth]
        lines.append([f"{kind}, measured", *(spread([run[k] for run in own], ".3g") for k in shown)])
        lines.append([f"{kind}, closed form", *(f"{closed[k]:.3g}" for k in shown)])
    return markdown(["after block", *map(str, shown)], lines)


if __name__ == "__main__":
    typer.run(main)

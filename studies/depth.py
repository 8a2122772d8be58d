"""Plain against residual by depth (the point of figure 11.2 of Prince 2023), on two data sets.

python studies/depth.py             all runs, docs/studies/depth.md
python studies/depth.py --quick     one epoch of two shallow networks, printed only
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

import unbraid.nn as unn
from _study import DOCS, grid
from _training import Row, errors, markdown, train_all, write
from unbraid import data

KINDS = ("plain", "residual")
KEY = ("data", "kind", "depth", "seed", "epochs")


def main(
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="One epoch, two layers, nothing written.")] = False,
    out: Annotated[Path, typer.Option(help="The folder of the page and the rows.")] = DOCS,
) -> None:
    """Train all networks and write the table."""
    sets, depths = (("digits",), (2,)) if quick else (("mnist1d", "digits"), (10, 20, 40))
    cells = grid(
        data=sets, kind=KINDS, depth=depths, seed=range(1 if quick else seeds), epochs=[1 if quick else epochs]
    )
    rows = train_all(cells, build, None if quick else out / "depth.json", KEY)
    lines = [
        [f"{name}, {depth} layers", *(errors(rows, data=name, depth=depth, kind=kind) for kind in KINDS)]
        for name in sets
        for depth in depths
    ]
    table = markdown(["test error in %", *KINDS], lines)
    print(table) if quick else write(out / "depth.md", table)


def build(cell: Row, generator: torch.Generator, examples: data.Dataset) -> nn.Module:
    """Layers of width 100 without a norm; the plain network has the residual one's weights, without its scale."""
    network = unn.mlp(
        inputs=examples.flat().features[0],
        classes=examples.classes,
        width=100,
        depth=cell["depth"],
        norm=None,
        scale=1.0 if cell["kind"] == "plain" else "1/sqrt(K)",
        generator=generator,
    )
    return network.plain() if cell["kind"] == "plain" else network


if __name__ == "__main__":
    typer.run(main)

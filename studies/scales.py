"""Branch scales at depth 200, without a norm: what lets a very deep network begin to learn?

python studies/scales.py             all runs, docs/studies/scales.md
python studies/scales.py --quick     one epoch of four blocks, printed only
"""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

import unbraid.nn as unn
from _study import DOCS, grid
from _training import Row, errors, markdown, train_all, write
from unbraid import data

SCALES: dict[str, dict[str, Any]] = {
    "none": {"norm": None},
    "1/√K": {"norm": None, "scale": "1/sqrt(K)"},
    "SkipInit, ReZero": {"norm": None, "scale": "learned"},
    "last layer at zero": {"norm": None, "scale": "zero"},
    "Fixup": {"norm": None, "scale": "fixup"},
    "batch norm": {"norm": "batch"},
    "batch norm, stochastic depth 0.5": {"norm": "batch", "stochastic_depth": 0.5},
}
KEY = ("data", "scale", "depth", "seed", "epochs")


def main(
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 10,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 2,
    quick: Annotated[bool, typer.Option("--quick", help="One epoch of four blocks, nothing written.")] = False,
    out: Annotated[Path, typer.Option(help="The folder of the page and the rows.")] = DOCS,
) -> None:
    """Train all networks and write the table."""
    depths = (4,) if quick else (20, 200)
    cells = grid(
        data=["mnist1d"],
        scale=list(SCALES),
        depth=depths,
        seed=range(1 if quick else seeds),
        epochs=[1 if quick else epochs],
    )
    rows = train_all(cells, build, None if quick else out / "scales.json", KEY)
    lines = [[name, *(errors(rows, scale=name, depth=depth) for depth in depths)] for name in SCALES]
    table = markdown(["test error in %", *(f"{depth} blocks" for depth in depths)], lines)
    print(table) if quick else write(out / "scales.md", table)


def build(cell: Row, generator: torch.Generator, examples: data.Dataset) -> nn.Module:
    """Blocks of two layers of width 50, pre-activation."""
    options = SCALES[cell["scale"]]
    return unn.mlp(
        inputs=examples.flat().features[0],
        classes=examples.classes,
        width=50,
        depth=cell["depth"],
        order="norm act linear norm act linear +",
        generator=generator,
        **options,
    )


if __name__ == "__main__":
    typer.run(main)

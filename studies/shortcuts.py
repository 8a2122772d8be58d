"""Shortcuts that hurt (He et al. 2016, table 1): a scaled, gated, dropped or transformed skip is no longer a skip.

python studies/shortcuts.py             all runs, docs/studies/shortcuts.md
python studies/shortcuts.py --quick     one epoch of three blocks, printed only
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

SHORTCUTS = {
    "identity": {"shortcut": "identity"},
    "constant 0.5": {"shortcut": "half", "scale": 0.5},
    "exclusive gate": {"shortcut": "exclusive_gate"},
    "shortcut-only gate": {"shortcut": "shortcut_gate"},
    "dropout 0.5": {"shortcut": "dropout"},
    "linear layer (1x1)": {"shortcut": "projection_everywhere"},
}
KEY = ("data", "shortcut", "depth", "seed", "epochs")


def main(
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 15,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="One epoch of three blocks, nothing written.")] = False,
    out: Annotated[Path, typer.Option(help="The folder of the page and the rows.")] = DOCS,
) -> None:
    """Train all networks and write the table."""
    depths = (3,) if quick else (9, 54)
    cells = grid(
        data=["mnist1d"],
        shortcut=list(SHORTCUTS),
        depth=depths,
        seed=range(1 if quick else seeds),
        epochs=[1 if quick else epochs],
    )
    rows = train_all(cells, build, None if quick else out / "shortcuts.json", KEY)
    lines = [[name, *(errors(rows, shortcut=name, depth=depth) for depth in depths)] for name in SHORTCUTS]
    table = markdown(["test error in %", *(f"{depth} blocks" for depth in depths)], lines)
    print(table) if quick else write(out / "shortcuts.md", table)


def build(cell: Row, generator: torch.Generator, examples: data.Dataset) -> nn.Module:
    """Blocks of two layers of width 50 with batch norm, in the original order."""
    return unn.mlp(
        inputs=examples.flat().features[0],
        classes=examples.classes,
        width=50,
        depth=cell["depth"],
        order="linear norm act linear norm + act",
        generator=generator,
        **SHORTCUTS[cell["shortcut"]],
    )


if __name__ == "__main__":
    typer.run(main)

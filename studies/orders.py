"""Order of operations, shallow and deep (He et al. 2016, table 2).

python studies/orders.py                                 on MNIST-1D, docs/studies/orders.md
python studies/orders.py --quick                         one epoch, printed only
python studies/orders.py --data cifar10.npz --epochs 60  the CIFAR networks on images of your own, best on a GPU
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

ORDERS = {
    "original": "layer norm act layer norm + act",
    "norm after the addition": "layer norm act layer + norm act",
    "act before the addition": "layer norm act layer norm act +",
    "act-only pre-activation": "act layer norm act layer norm +",
    "full pre-activation": "norm act layer norm act layer +",
}
KEY = ("data", "order", "layers", "seed", "epochs")


def main(
    examples: Annotated[
        str, typer.Option("--data", help="mnist1d, digits, a file, or a folder of images.")
    ] = "mnist1d",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 15,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="One epoch of 8 layers, nothing written.")] = False,
    out: Annotated[Path, typer.Option(help="The folder of the page and the rows.")] = DOCS,
) -> None:
    """Train all networks and write the table."""
    layers = (8,) if quick else (20, 110)
    cells = grid(
        data=[examples],
        order=list(ORDERS),
        layers=layers,
        seed=range(1 if quick else seeds),
        epochs=[1 if quick else epochs],
    )
    rows = train_all(cells, build, None if quick else out / "orders.json", KEY)
    lines = [[order, *(errors(rows, order=order, layers=count) for count in layers)] for order in ORDERS]
    table = markdown(["test error in %", *(f"{count} layers" for count in layers)], lines)
    print(table) if quick else write(out / "orders.md", table)


def build(cell: Row, generator: torch.Generator, examples: data.Dataset) -> nn.Module:
    """Images get the CIFAR networks, other examples layers of width 50; batch norm in both."""
    order = ORDERS[cell["order"]]
    if len(examples.features) == 3 and cell["data"] != "digits":
        return unn.conv2d(
            inputs=examples.features[0],
            classes=examples.classes,
            layers=cell["layers"],
            order=order.replace("layer", "conv"),
            generator=generator,
        )
    return unn.mlp(
        inputs=examples.flat().features[0],
        classes=examples.classes,
        width=50,
        depth=(cell["layers"] - 2) // 2,
        order=order.replace("layer", "linear"),
        generator=generator,
    )


if __name__ == "__main__":
    typer.run(main)

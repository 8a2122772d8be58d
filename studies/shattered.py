"""Shattered gradients: which of initialisation, norm, depth, skips and scale make dy/dx white noise?

    python studies/shattered.py             the whole factorial experiment, docs/studies/shattered.md and its figure
    python studies/shattered.py --quick     two seeds, few depths, printed only

Balduzzi et al. (2017), figure 1; figure 11.3 of Prince (2023). Networks of width 200 map one number to one number;
dy/dx is taken at 256 points in [−2, 2], batch norm with the statistics of these points. Finished cells are kept.
"""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

import unbraid.nn as unn
from _study import DOCS, Row, Rows, grid, markdown, rewrite
from unbraid import draw
from unbraid.gradients import Autocorrelation, input_autocorrelation

DEPTHS = (1, 2, 5, 10, 25, 50)
ORDERS = {None: "act linear +", "batch": "norm act linear +", "batch after": "linear norm act +"}
KINDS = {"plain": (False, 1.0), "residual": (True, 1.0), "residual, scale 0.1": (True, 0.1)}
INITS = ("glorot_normal", "he_normal")


def main(
    seeds: Annotated[int, typer.Option(min=2, help="Networks a cell.")] = 20,
    quick: Annotated[
        bool, typer.Option("--quick", help="A look: two seeds, depths 1 and 10, nothing written.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The folder of the page, the rows and the figure.")] = DOCS,
) -> None:
    """Measure every cell, then write the tables."""
    seeds, depths = (2, (1, 10)) if quick else (seeds, DEPTHS)
    cells = grid(seeds=[seeds], init=INITS, norm=list(ORDERS), kind=list(KINDS), depth=depths)
    if quick:
        print(table([{**cell, **measure(cell)} for cell in cells], depths[-1]))
        return
    rows = Rows(out / "shattered.json", "seeds", "init", "norm", "kind", "depth").run(cells, measure)
    page = out / "shattered.md"
    if page.exists():
        rewrite(page, {"table": table(rows, DEPTHS[-1]), "depths": by_depth(rows)})
    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
    for name, cell in SHOWN.items():
        found = correlate({"seeds": seeds, "depth": DEPTHS[-1], **cell}, lags=40)
        draw.save(found.plot(), images / f"shattered_{name}.svg")
    print(table(rows, DEPTHS[-1]))


SHOWN: dict[str, Row] = {
    "plain": {"init": "he_normal", "norm": "batch", "kind": "plain"},
    "residual": {"init": "he_normal", "norm": "batch", "kind": "residual, scale 0.1"},
}


def measure(cell: Row) -> Row:
    """Lags 1 and 5, and the size of the gradients, over the seeds of one cell."""
    found = correlate(cell, lags=5)
    return {
        "lag 1": float(found.values[1]),
        "lag 5": float(found.values[5]),
        "half width": float(found.values[1] - found.band[1, 0]),
        "norm of dy/dx": float(found.norms.median()),
    }


def correlate(cell: Row, lags: int) -> Autocorrelation:
    """The autocorrelation over the seeds of one cell."""
    points = torch.linspace(-2, 2, 256, dtype=torch.float64)[:, None]
    return input_autocorrelation((network(cell, seed) for seed in range(cell["seeds"])), points, lags=lags)


def network(cell: Row, seed: int) -> nn.Module:
    """One network of a cell, in train mode, with biases as torch draws them: without, all kinks lie at zero."""
    skips, scale = KINDS[cell["kind"]]
    generator = torch.Generator().manual_seed(seed)
    made: Any = unn.mlp(
        inputs=1,
        classes=1,
        width=200,
        depth=cell["depth"],
        order=ORDERS[cell["norm"]],
        norm="batch" if cell["norm"] else None,
        scale=scale,
        init=cell["init"],
        generator=generator,
    )
    made = made if skips else made.plain()
    for module in made.modules():
        if isinstance(module, nn.Linear) and isinstance(module.bias, Tensor):
            bound = module.in_features**-0.5
            with torch.no_grad():
                module.bias.uniform_(-bound, bound, generator=generator)
    return made.double().train()


def table(rows: list[Row], depth: int) -> str:
    """The deepest networks: a row for each initialisation, norm and kind."""
    lines = [
        [
            f"{row['kind']}, {name(row)}",
            f"{row['lag 1']:.2f} ± {row['half width']:.2f}",
            f"{row['lag 5']:.2f}",
            f"{row['norm of dy/dx']:.1e}",
        ]
        for row in rows
        if row["depth"] == depth
    ]
    return markdown([f"{depth} layers", "lag 1", "lag 5", "median size of dy/dx"], lines)


def by_depth(rows: list[Row]) -> str:
    """The autocorrelation at lag 1 against depth."""
    cells = grid(init=INITS, norm=list(ORDERS), kind=list(KINDS))
    lines = []
    for cell in cells:
        own = {row["depth"]: row for row in rows if all(row[field] == value for field, value in cell.items())}
        lines.append([f"{cell['kind']}, {name(cell)}", *(f"{own[depth]['lag 1']:.2f}" for depth in DEPTHS)])
    return markdown(["lag 1 at depth", *map(str, DEPTHS)], lines)


def name(row: Row) -> str:
    """Initialisation and norm in words."""
    norm = {None: "no norm", "batch": "batch norm first", "batch after": "batch norm after the layer"}[row["norm"]]
    return f"{row['init'].split('_')[0].capitalize()}, {norm}"


if __name__ == "__main__":
    typer.run(main)

"""Training studies: cells of settings, each trained with some seeds, and a table of test errors."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from _study import Row, Rows, markdown, rewrite, spread
from unbraid import data, train

Build = Callable[[Row, torch.Generator, data.Dataset], nn.Module]


def train_all(cells: list[Row], build: Build, file: Path | None, key: Sequence[str]) -> list[Row]:
    """Train every cell that is not in the file yet; without a file nothing is kept."""
    sets: dict[str, data.Dataset] = {}

    def work(cell: Row) -> Row:
        found = sets.setdefault(str(cell["data"]), data.by_name(cell["data"]))
        generator = torch.Generator().manual_seed(cell["seed"])
        network = build(cell, generator, found)
        examples = found if _takes_images(network) else found.flat()
        recipe = train.Recipe(epochs=cell["epochs"], lr=cell.get("lr", 0.05))
        run = train.fit(network, examples, recipe, seed=cell["seed"])
        result = run.to_dict()
        return {"test_error": result["test_error"], "diverged": run.diverged}

    if file is None:
        return [{**cell, **work(cell)} for cell in cells]
    return Rows(file, *key).run(cells, work)


def errors(rows: list[Row], **fields: Any) -> str:
    """Median and range over seeds of the test error in % of the rows with these fields."""
    chosen = [row for row in rows if all(row[field] == value for field, value in fields.items())]
    return spread([float("nan") if row["test_error"] is None else row["test_error"] for row in chosen], ".1f")


def write(page: Path, table: str) -> None:
    """Into the page where there is one, and to the terminal."""
    if page.exists():
        rewrite(page, {"table": table})
    print(table)


def _takes_images(network: nn.Module) -> bool:
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Conv1d | nn.Linear))
    return not isinstance(first, nn.Linear)


__all__ = ["Row", "errors", "markdown", "train_all", "write"]

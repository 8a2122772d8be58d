"""Keep a network in a folder without training it."""

from pathlib import Path

import torch
from torch import nn

from unbraid.data import Dataset
from unbraid.errors import CheckpointError
from unbraid.train import _checkpoint
from unbraid.train._claim import claimed
from unbraid.train._description import describe
from unbraid.train._draws import Draws
from unbraid.train._recipe import STANDARD, Recipe
from unbraid.train._run import Run

__all__ = ["save"]


def save(network: nn.Module, data: Dataset, folder: str | Path, recipe: Recipe = STANDARD, *, seed: int = 0) -> Run:
    """Write a network as a run that has not begun: `load` gives it back, `fit(..., resume=True)` trains it on.

    Args:
        network: any module; one made by `unbraid.nn` can be built again from the folder alone.
        data: what it is to be trained on, or was.
        folder: where its checkpoint goes.
        recipe: how it is to be trained.
        seed: of the order of examples.

    Raises:
        CheckpointError: where the folder holds a run already, is being written by another process, or cannot be
            written.
    """
    path = Path(folder)
    draws = Draws(seed, torch.device("cpu")).state()
    with claimed(path):
        if _checkpoint.exists(path):
            raise CheckpointError(f"{path}: there is a run here already; choose another folder.")
        _checkpoint.write(path, describe(network, data, recipe, seed), network, recipe.optimizer_of(network), draws, [])
    return Run(network, data.name, recipe, seed, (), None, path)

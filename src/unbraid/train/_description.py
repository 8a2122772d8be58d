"""What a run was made of, as JSON: what must be equal for a run to be continued."""

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from unbraid.data import Dataset
from unbraid.errors import CheckpointError
from unbraid.nn import PlainNetwork, ResidualNetwork
from unbraid.train._recipe import Recipe

__all__ = ["FORMAT", "check_same", "describe", "describe_data"]

FORMAT = 1  # of the folder; raise it when an older unbraid could no longer read what is written


def describe(network: nn.Module, data: Dataset, recipe: Recipe, seed: int) -> dict[str, object]:
    """The content of config.json."""
    config = network.config if isinstance(network, ResidualNetwork | PlainNetwork) else None
    description = {
        "format": FORMAT,
        "network": config,  # null for a network built by hand: `load` then needs the network
        "recipe": asdict(recipe),
        "seed": seed,
        "data": {**describe_data(data), "path": None if data.path is None else str(data.path)},
        "versions": {"unbraid": version("unbraid"), "torch": str(torch.__version__)},
    }
    # Through JSON, so that it compares equal to what is read back, tuples and all.
    same: dict[str, object] = json.loads(json.dumps(description))
    return same


def describe_data(data: Dataset) -> dict[str, object]:
    """What tells one data set from another: its name, its sizes, and a checksum of its content."""
    return {
        "name": data.name,
        "train": len(data.train_labels),
        "test": len(data.test_labels),
        "features": list(data.features),
        "classes": data.classes,
        "sha256": _digest(data),
    }


def check_same(folder: Path, kept: dict[str, object], given: dict[str, object]) -> None:
    """The folder's run must be the one that is asked for; versions may differ, and the place of its data.

    Raises:
        CheckpointError: with the first difference.
    """
    for key in ("format", "network", "recipe", "seed", "data"):
        was, now = _difference(kept.get(key), given[key])
        if was != now:
            raise CheckpointError(
                f"{folder}: only the same run can be resumed, and its {key} differs:\n"
                f"  in the folder {was}\n  asked for     {now}\n"
                "Ask for the same, or choose another folder."
            )


def _difference(kept: object, given: object) -> tuple[object, object]:
    """Only the entries that differ, of two objects; else the two values."""
    if not (isinstance(kept, dict) and isinstance(given, dict)):
        return kept, given
    keys = [key for key in kept | given if kept.get(key) != given.get(key) and key != "path"]
    return {key: kept.get(key) for key in keys}, {key: given.get(key) for key in keys}


def _digest(data: Dataset) -> str:
    digest = hashlib.sha256()
    for tensor in (data.train_inputs, data.train_labels, data.test_inputs, data.test_labels):
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()

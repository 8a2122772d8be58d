"""Read a run back from its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unbraid.errors import CheckpointError
from unbraid.nn import build
from unbraid.train import _checkpoint
from unbraid.train._description import FORMAT
from unbraid.train._recipe import Recipe
from unbraid.train._run import Run

__all__ = ["load"]

_LEAST = 100  # blocks or layers that any checkpoint may have: stem and head count among a network's layers


def load(folder: str | Path, *, network: nn.Module | None = None) -> Run:
    """Rebuild a run from its folder: the network by `nn.build` and its weights, on the CPU, and its history.

    The run may still be going, or have been killed: its last good epoch is what counts.

    Args:
        folder: what was given to `fit`.
        network: put the weights into this network instead. Needed where the network was built by hand,
            because then the folder does not say how to build it.

    Raises:
        CheckpointError: where there is no checkpoint, a file is missing, cut short or altered, the weights do
            not fit, or the folder does not say how to build the network.
    """
    path = Path(folder)
    kept = _checkpoint.read(path)
    version = kept.description.get("format")
    if version != FORMAT:
        raise CheckpointError(f"{path}: this unbraid reads checkpoints of format {FORMAT}; this one is {version!r}")
    recipe, data, seed = _circumstances(path, kept.description)
    if network is None:
        config = kept.description.get("network")
        # Its shapes first, without memory for them: a config that was altered may ask for all there is.
        with torch.device("meta"):
            _checkpoint.check_weights(path, kept.weights, _build(path, config, len(kept.weights)))
        network = _build(path, config, len(kept.weights))
    _checkpoint.put_weights(path, kept.weights, network)
    facts = {key: value for key, value in dict(kept.description["data"]).items() if isinstance(key, str)}  # type: ignore[call-overload]
    return Run(network.eval(), data, recipe, seed, kept.history, kept.diverged, path, facts)


def _circumstances(path: Path, description: Mapping[str, Any]) -> tuple[Recipe, str, int]:
    try:
        return Recipe(**description["recipe"]), str(description["data"]["name"]), int(description["seed"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: not a checkpoint that unbraid wrote: {error}") from error


def _build(path: Path, config: object, tensors: int) -> nn.Module:
    if config is None:
        raise CheckpointError(
            f"{path}: this network was built by hand, so the folder holds its weights but not how to build "
            "it. Build it again and give it: train.load(folder, network=...)."
        )
    try:
        if not isinstance(config, Mapping):
            raise TypeError(f"it is {config!r}")
        gone = config.get("without") or []
        for key in ("depth", "layers", "stages"):
            # Each block has a tensor of weights or is one of those left out: more of them cannot be meant.
            if isinstance(config.get(key), int) and config[key] > _LEAST + 4 * (tensors + len(gone)):
                raise ValueError(f"{key} is {config[key]:,}, and there are {tensors:,} tensors of weights")
        # A generator of its own, since the first weights, soon replaced, would be drawn from everyone's.
        return build(config, generator=torch.Generator())
    except Exception as error:  # whatever a config that was altered brings a constructor to
        raise CheckpointError(f"{path}: config.json describes no network that can be built: {error}") from error

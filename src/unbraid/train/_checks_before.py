"""What is looked at before training: the device, and whether the network takes the data."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from unbraid.data import Dataset
from unbraid.errors import DataError, ShapeError
from unbraid.nn import PlainNetwork, ResidualNetwork

__all__ = ["check_data", "check_shapes", "checkpointed", "device_of"]


def check_data(call: str, data: Any) -> Dataset:
    """The data set, which is no iterable of batches.

    Raises:
        DataError: it is something else.
    """
    if isinstance(data, Dataset):
        return data
    raise DataError(
        f"{call}: data is a Dataset, with a training and a test part; a {type(data).__name__} came. Make one "
        "of tensors: unbraid.data.from_arrays(inputs, labels), inputs [examples, *features] and labels [examples]."
    )


def device_of(device: torch.device | str) -> torch.device:
    """The device asked for; "auto" is the first CUDA device, or the CPU where there is none."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    place = torch.device(device)
    if place.type == "cuda" and place.index is None:
        # With its number, so that saving and restoring the generator's state means this very device.
        place = torch.device("cuda", torch.cuda.current_device())
    return place


@contextmanager
def checkpointed(network: nn.Module, wanted: bool) -> Iterator[None]:
    """Inside, the network keeps about √K activations for the gradient, if that is wanted.

    Raises:
        ValueError: where its blocks are not known to be a sequence.
    """
    if not wanted:
        yield
        return
    if not isinstance(network, ResidualNetwork | PlainNetwork):
        raise ValueError(
            "fit: checkpointing runs the blocks of a network of unbraid.nn in segments, and this one is a "
            f"{type(network).__name__}. Call torch.utils.checkpoint in its own forward instead."
        )
    before, network.checkpointing = network.checkpointing, True
    try:
        yield
    finally:
        network.checkpointing = before


@torch.no_grad()
def check_shapes(network: nn.Module, data: Dataset) -> None:
    """Try one example, in eval mode, where nothing is drawn and no running statistics move.

    Raises:
        ShapeError: where the network does not take such inputs, or gives fewer scores than there are classes.
    """
    network.eval()
    shapes: dict[str, tuple[int, ...]] = {"inputs": (1, *data.features)}
    name = type(network).__name__
    try:
        outputs = network(data.train_inputs[:1])
    except RuntimeError as error:
        raise ShapeError(
            f"{name} does not take the inputs of {data.name}, {[1, *data.features]}: {error}\n"
            "For a fully connected network, data.flat() makes each input one vector.",
            block="network",
            shapes=shapes,
        ) from error
    if outputs.ndim != 2 or outputs.shape[1] < data.classes:
        raise ShapeError(
            f"{name} must give [batch, classes] scores for the {data.classes} classes of {data.name}; "
            f"for a batch of 1 it gives {list(outputs.shape)}",
            block="network",
            shapes=shapes | {"outputs": tuple(outputs.shape)},
        )

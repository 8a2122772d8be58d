"""Weights from a file: safetensors, or torch's own format as far as it holds tensors alone."""

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from unbraid.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["load_weights"]


def load_weights(model: "nn.Module", path: Path) -> None:
    """Load a state dict into a model, every name and shape checked.

    Raises:
        CheckpointError: the file is missing, damaged, would run code when read, or does not fit the model.
    """
    state = _read(path)
    own = model.state_dict()
    problems = [
        *(f"lacks {name}" for name in own.keys() - state.keys()),
        *(f"has {name}, which the model has not" for name in state.keys() - own.keys()),
        *(
            f"has {name} {list(state[name].shape)}, the model {list(own[name].shape)}"
            for name in own.keys() & state.keys()
            if state[name].shape != own[name].shape
        ),
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path} does not fit the model: it {'; it '.join(sorted(problems)[:3])}{more}.")
    model.load_state_dict(state)


def _read(path: Path) -> "dict[str, Tensor]":
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(f"there is no file {path}.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is no readable safetensors file: {error}") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, and reading it could run code: it was not read. "
            "Save the state dict alone, or as .safetensors."
        ) from error
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise CheckpointError(f"{path} cannot be read: {type(error).__name__} {error}".strip()) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{path} must hold a state dict: names and tensors. It holds a {type(state).__name__}.")
    return state

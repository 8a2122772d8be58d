"""Weights from a file: safetensors, or torch's own format as far as it holds tensors alone."""

import pickle
import zipfile
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
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, NotImplementedError) as error:  # a type of numbers that torch does not convert
        raise CheckpointError(f"{path} does not fit the model: {str(error).splitlines()[-1].strip()}") from error


def _read(path: Path) -> "dict[str, Tensor]":
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(f"there is no file {path}.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, RuntimeError, TypeError, KeyError, MemoryError) as error:
            raise CheckpointError(f"{path} is no readable safetensors file: {error}") from error
    try:
        _check_size(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, and reading it could run code: it was not read. "
            "Save the state dict alone, or as .safetensors."
        ) from error
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise CheckpointError(f"{path} cannot be read: {type(error).__name__} {error}".strip()) from error
    named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{path} must hold a state dict: names and tensors. It holds a {type(state).__name__}.")
    if odd := next((name for name, value in state.items() if value.layout != torch.strided or value.is_meta), None):
        raise CheckpointError(f"{path} must hold tensors with their numbers, none of them sparse or empty: {odd} is.")
    return state


def _check_size(path: Path) -> None:
    """torch.save compresses nothing: an archive that unpacks to more than it is was made to fill the memory."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > path.stat().st_size:
            raise CheckpointError(f"{path} has {path.stat().st_size:,} bytes and unpacks to {size:,}: it was not read.")

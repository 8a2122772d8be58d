"""Weights from a file: safetensors, or torch's own format as far as it holds tensors alone."""

from pathlib import Path
from typing import TYPE_CHECKING

from unbraid.cli.models._torch_file import read_torch_file
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
    from unbraid.saved import read_tensors

    if not path.is_file():
        raise CheckpointError(f"there is no file {path}.")
    if path.suffix != ".safetensors":
        return read_torch_file(path)
    try:
        return read_tensors(path)
    except CheckpointError as error:
        raise CheckpointError(str(error).removeprefix("load: ")) from error

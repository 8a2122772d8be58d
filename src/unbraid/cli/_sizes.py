"""Whether a model takes the examples of a data set, and what to write where it does not."""

from typing import Any

import torch

from unbraid.cli.models._loaded import Loaded
from unbraid.data import Dataset, by_name

__all__ = ["check_takes", "examples_of"]


def examples_of(name: str, size: str | None) -> Dataset:
    """The data set of a name, its images scaled where a size is given.

    Raises:
        ValueError: the size is none, or the data set is no folder of images.
    """
    if size is None:
        return by_name(name)
    parts = [part.strip() for part in size.split(",")]
    if len(parts) > 2 or not all(part.isdecimal() and 0 < int(part) <= 1 << 14 for part in parts):
        raise ValueError(f'--size is HEIGHT,WIDTH, or one number for both, such as 224; got "{size}".')
    height, width = int(parts[0]), int(parts[-1])
    return by_name(name, size=(height, width))


def check_takes(loaded: Loaded, data: Dataset, *, traced: bool = True) -> Any:
    """What a model gives for two examples.

    Args:
        loaded: the model.
        data: the examples.
        traced: whether it is traced with the inputs that it was loaded with, not with these.

    Raises:
        ValueError: it does not take them; both sizes are named, and the option that makes them agree.
    """
    inputs = data.test_inputs[:2].to(loaded.args[0].dtype)
    own, came = list(loaded.args[0].shape[1:]), list(data.features)
    said = f"{loaded.name} does not take the inputs of {data.name}, {[2, *came]}"
    # Height and width are fixed in a form; where they differ, a model that runs would fail later.
    if traced and own != came and len(own) == 3:
        raise ValueError(f"{said}: it was loaded with inputs of {[2, *own]}. {_remedy(own, came)}")
    try:
        with torch.no_grad():
            return loaded.model(inputs)
    except Exception as error:  # whatever the model's own code makes of inputs that do not fit
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = f" It was loaded with inputs of {[2, *own]}. {_remedy(own, came)}" if own != came else ""
        raise ValueError(f"{said}: {why}.{remedy}".replace("..", ".")) from error


def _remedy(own: list[int], came: list[int]) -> str:
    if len(own) == len(came) == 3 and own[0] == came[0]:
        scaled = f"Give --size {own[1]},{own[2]} to scale the images of a folder"
        return f"{scaled}, or --input-shape 2,{','.join(map(str, came))} to load the model for these."
    return f"Give --input-shape 2,{','.join(map(str, came))} where the model takes such inputs, or other data."

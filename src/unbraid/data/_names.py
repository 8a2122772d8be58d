"""Data sets by name, as the command line takes them."""

from pathlib import Path

from unbraid.data._dataset import Dataset
from unbraid.data._digits import digits
from unbraid.data._files import load
from unbraid.data._images import images
from unbraid.data._mnist1d import mnist1d
from unbraid.errors import DataError

__all__ = ["by_name"]

BUILT_IN = {"mnist1d": mnist1d, "digits": digits}


def by_name(name: str | Path, *, size: int | tuple[int, int] | None = None) -> Dataset:
    """The data set called "mnist1d" or "digits", or the file or the folder of images at this path.

    Args:
        name: which.
        size: (height, width) to scale the images of a folder to, one number for both.

    Raises:
        DataError: where it is neither, or as `load` and `images`; or a size is given for what is no folder of images.
    """
    if size is not None and not Path(name).is_dir():
        raise DataError(f'a size scales the images of a folder; "{name}" is none')
    if str(name) in BUILT_IN:
        return BUILT_IN[str(name)]()
    path = Path(name)
    if path.is_dir():
        return images(path, size=size)
    # Without an ending and without a file it was meant as a name.
    if not path.suffix and not path.exists():
        raise DataError(
            f'"{name}" is no data set: the built-in ones are {" and ".join(BUILT_IN)}; '
            "anything else must be the path of an .npz or .safetensors file, or of a folder of images by class"
        )
    return load(path)

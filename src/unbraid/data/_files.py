"""Read a data set from an `.npz` or a `.safetensors` file. Nothing unpickles."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unbraid.data._arrays import Over, from_arrays
from unbraid.data._dataset import Dataset
from unbraid.errors import CheckpointError, DataError
from unbraid.saved import stored

__all__ = ["load"]

Array = npt.NDArray[np.generic]
REQUIRED, OPTIONAL = ("x", "y"), ("x_test", "y_test")
# Honest numbers, even zeros in part, unpack to less; a file made to fill the memory unpacks to 1,000 times its size.
_MOST_BYTES, _MOST_TIMES = 2**28, 100


def load(
    path: str | Path,
    *,
    classes: int | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    over: Over = "all",
) -> Dataset:
    """Read labelled examples from a file of one's own.

    The file holds arrays named x [examples, *features] and y [examples], and may hold x_test and y_test.
    Without the last two, `test_fraction` of the examples are set apart for testing, drawn by a generator
    with `seed`, so that one file gives the same parts each time.

        numpy.savez("mine.npz", x=inputs, y=labels, x_test=more_inputs, y_test=more_labels)

    Args:
        path: a file whose name ends in .npz or .safetensors.
        classes: as for `from_arrays`, and so are the other arguments.
        test_fraction: the share to set apart where the file has no test part.
        seed: of the generator that draws that share.
        over: what shares one mean and standard deviation.

    Raises:
        DataError: where the file is missing, damaged, of another kind, holds Python objects (which only
            unpickling, that is running code, could read), lacks x or y, or breaks a rule of `from_arrays`.
    """
    path = Path(path)
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    if path.suffix not in readers:
        raise DataError(f"{path}: a data file ends in .npz or .safetensors; this one ends in {path.suffix!r}")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file" if not path.exists() else f"{path}: this is not a file")
    try:
        arrays = readers[path.suffix](path)
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise DataError(f"{path}: its arrays do not fit into memory") from error
    dataset = from_arrays(
        arrays["x"],
        arrays["y"],
        arrays.get("x_test"),
        arrays.get("y_test"),
        name=str(path),
        classes=classes,
        test_fraction=test_fraction,
        seed=seed,
        over=over,
    )
    # Messages show the whole path; the name is the same from whichever folder the file is read.
    return replace(dataset, name=path.name, path=path.resolve())


def _wanted(path: Path, keys: list[str]) -> list[str]:
    missing = [key for key in REQUIRED if key not in keys]
    if missing:
        raise DataError(
            f"{path}: a data file holds x and y (and x_test, y_test); {' and '.join(missing)} missing. "
            f"It holds: {', '.join(sorted(keys)) or 'nothing'}."
        )
    return [key for key in (*REQUIRED, *OPTIONAL) if key in keys]


def _read_npz(path: Path) -> dict[str, Array]:
    # A lone .npy array or a pickle under this name is refused by its first bytes, before numpy sees it.
    with path.open("rb") as file:
        begins = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    if not (begins and zipfile.is_zipfile(path)):
        raise DataError(
            f"{path}: not an .npz archive, or cut short ({path.stat().st_size:,} bytes). "
            "Write it with numpy.savez(path, x=..., y=...)."
        )
    try:
        # Opened here, because numpy forgets to close the file of an archive that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            _check_size(path, archive.zip)
            return {key: _member(path, archive, key) for key in _wanted(path, archive.files)}
    except (DataError, OSError, MemoryError):
        raise
    except Exception as error:  # zipfile, its decompressors and numpy's parser of headers raise many kinds
        raise DataError(f"{path}: the archive is damaged: {error}. Write or copy it again.") from error


def _check_size(path: Path, archive: zipfile.ZipFile | None) -> None:
    assert archive is not None
    size = sum(info.file_size for info in archive.infolist())
    if size > max(_MOST_BYTES, _MOST_TIMES * path.stat().st_size):
        raise DataError(
            f"{path}: a file of {path.stat().st_size:,} bytes that unpacks to {size:,} is refused, as it may be made "
            f"to fill the memory; {_MOST_TIMES} times its size is allowed. Write it with numpy.savez, uncompressed."
        )


def _member(path: Path, archive: "np.lib.npyio.NpzFile", key: str) -> Array:
    try:
        array = archive[key]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path}: {key} holds Python objects, which are never unpickled: that could run code. "
                f"Save it as numbers, e.g. {key}.astype(numpy.float32)."
            ) from error
        raise DataError(f"{path}: {key} is damaged: {error}. Write or copy the file again.") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: {key} is no numpy array. Write the file with numpy.savez(path, x=..., y=...).")
    return array


def _read_safetensors(path: Path) -> dict[str, Array]:
    try:
        tensors = stored(path)
        return {key: _numpy(tensors[key].read()) for key in _wanted(path, list(tensors))}
    except CheckpointError as error:
        raise DataError(
            f"{path}: not a safetensors file, or damaged ({path.stat().st_size:,} bytes): "
            f"{str(error).removeprefix('load: ')} Write or copy it again."
        ) from error
    except (RuntimeError, TypeError) as error:  # where torch or numpy lack a type or its conversion
        raise DataError(f"{path}: numbers of a type that is not known: {error}. Write them in another one.") from error


def _numpy(tensor: Tensor) -> Array:
    # numpy has no bfloat16 and no 8-bit floats; float32 holds all of their values.
    narrow = tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64)
    array: Array = (tensor.float() if narrow else tensor).numpy()
    return array

"""A folder of images by class -> a data set. Pillow reads the files."""

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from unbraid.data._arrays import Over, from_arrays
from unbraid.data._dataset import Dataset
from unbraid.data._optional import needs
from unbraid.data._picture import MOST_TIMES, Pixels, read_picture
from unbraid.errors import DataError

__all__ = ["images"]

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
PARTS = ("train", "test")
_DEEPEST = 16
_MOST_BYTES = 2**28  # of all images at their own size, unless their files account for more

Named = dict[str, list[Path]]  # the files of each class


def images(
    folder: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    colours: Literal["rgb", "grey"] = "rgb",
    test_fraction: float = 0.2,
    seed: int = 0,
    over: Over = "channel",
) -> Dataset:
    """Read images that lie in one folder for each class: folder/cat/1.png, folder/dog/1.jpg.

    Or in train/ and test/ first: folder/train/cat/1.png, folder/test/cat/1.png; without these, `test_fraction` of the
    images are set apart. Classes are numbered in the order of their names, and images read in that of their paths, so
    that one folder gives the same data set on any machine. Folders within a class belong to it; names that begin with
    a dot are passed over. Of an animation the first picture is read; transparency is dropped, and pictures are turned
    as their EXIF data says.

    Args:
        folder: where the classes are, or train/ and test/.
        size: (height, width) to scale every image to, one number for both; None reads them as they are.
        colours: "rgb", three channels, or "grey", one.
        test_fraction: as for `from_arrays`.
        seed: as for `from_arrays`.
        over: as for `from_arrays`.

    Returns:
        The data set, its inputs [examples, channels, height, width] from levels 0 to 255, standardised; `names` are the
        classes'.

    Raises:
        DataError: Pillow is not installed, there is no such folder, a class is empty or has no images of one part, a
            file is no image or cannot be read, has more than 8 bits a channel, unpacks to more than 100 times its bytes
            and 32 MiB, or sizes differ and none is given.
        ValueError: a size below 1, or unknown colours.
    """
    folder = Path(folder)
    shape = (size, size) if isinstance(size, int) else size
    if shape is not None and min(shape) < 1:
        raise ValueError(f"images: a size must be 1 or more; got {size}")
    if colours not in ("rgb", "grey"):
        raise ValueError(f'images: colours are "rgb" or "grey"; got "{colours}"')
    with needs("Pillow", extra="data", purpose="reading images"):
        import_module("PIL.Image")
    parts = [_classes(part) for part in _parts(folder)]
    names = list(parts[0])
    _check_names(folder, parts)
    arrays = [_stack(folder, part, shape, "RGB" if colours == "rgb" else "L") for part in parts]
    tests = arrays[1] if len(arrays) == 2 else (None, None)
    dataset = from_arrays(
        *arrays[0],
        *tests,
        name=str(folder),
        classes=len(names),
        test_fraction=test_fraction,
        seed=seed,
        over=over,
    )
    return replace(dataset, name=folder.name, names=tuple(names), path=folder.resolve())


def _parts(folder: Path) -> list[Path]:
    """The folder itself, or train and test in it."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder" if not folder.exists() else f"{folder}: this is a file")
    inside = [entry.name for entry in _entries(folder)]
    if "train" not in inside:
        return [folder]
    if "test" not in inside or not {entry.name for entry in _entries(folder) if entry.is_dir()} <= set(PARTS):
        raise DataError(
            f"{folder}: beside train/ there must be test/ and no other folder; there is {', '.join(inside)}. "
            "Rename what holds the test images to test, or give a folder of classes."
        )
    return [folder / part for part in PARTS]


def _classes(folder: Path) -> Named:
    """The image files of each class, in order."""
    entries = _entries(folder)
    stray = next((entry for entry in entries if not entry.is_dir() and entry.suffix.lower() in ENDINGS), None)
    if stray:
        raise DataError(f"{stray}: an image lies in the folder of its class; this one lies beside the classes.")
    classes = {entry.name: list(_files(entry)) for entry in entries if entry.is_dir()}
    if not classes:
        raise DataError(f"{folder}: there must be a folder of images for each class; there is none.")
    empty = next((name for name, files in classes.items() if not files), None)
    if empty is not None:
        raise DataError(f"{folder / empty}: a class must hold images; this folder is empty. Fill it, or remove it.")
    return classes


def _entries(folder: Path) -> list[Path]:
    return sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _files(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    here = folder.resolve()
    if here in above:
        raise DataError(f"{folder}: this link leads back to a folder that it lies in. Remove it.")
    if len(above) >= _DEEPEST:
        raise DataError(f"{folder}: folders of images may lie {_DEEPEST} deep in another; this one lies deeper.")
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _files(entry, above | {here})
        elif entry.suffix.lower() in ENDINGS:
            yield entry
        else:
            raise DataError(
                f"{entry}: this is no image. A class holds files that end in {', '.join(ENDINGS)}; move it elsewhere."
            )


def _check_names(folder: Path, parts: list[Named]) -> None:
    for name in sorted(set(parts[0]) ^ set(parts[-1])):
        has, lacks = PARTS if name in parts[0] else PARTS[::-1]
        raise DataError(f'{folder}: train and test must have the same classes; "{name}" is in {has}, not in {lacks}.')


def _stack(
    folder: Path, classes: Named, shape: tuple[int, int] | None, mode: str
) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Images [examples, channels, height, width] and the number of each one's class."""
    files: list[tuple[Path, int]] = []
    for label, paths in enumerate(classes.values()):
        files += [(path, label) for path in paths]
    labels = np.array([label for _, label in files])
    first = read_picture(files[0][0], shape, mode)
    if shape is None:
        _check_size(folder, [path for path, _ in files], first.nbytes)
    pictures = np.empty((len(files), *first.shape), dtype=np.uint8)
    pictures[0] = first
    for number, (path, _) in enumerate(files[1:], start=1):
        pixels = read_picture(path, shape, mode)
        if pixels.shape != first.shape:
            was, this = first.shape[1:], pixels.shape[1:]
            raise DataError(
                f"{folder}: images must have one size, height by width; {files[0][0].relative_to(folder)} is "
                f"{was[0]}x{was[1]}, {path.relative_to(folder)} {this[0]}x{this[1]}. "
                f"Have them scaled: size=({was[0]}, {was[1]})."
            )
        pictures[number] = pixels
    return pictures, labels


def _check_size(folder: Path, files: list[Path], each: int) -> None:
    length = sum(path.stat().st_size for path in files)
    if len(files) * each > max(_MOST_BYTES, MOST_TIMES * length):
        raise DataError(
            f"{folder}: {len(files):,} images of {length:,} bytes that unpack to {len(files) * each:,} are refused, as "
            f"they may be made to fill the memory; {MOST_TIMES} times their size is allowed. Scale them: size=224."
        )

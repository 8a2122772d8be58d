"""A folder of images by class -> a data set. Pillow reads the files."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unbraid.data._arrays import Over, from_arrays
from unbraid.data._dataset import Dataset
from unbraid.data._optional import needs
from unbraid.errors import DataError

__all__ = ["images"]

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # no others are tried, whatever a file's name
PARTS = ("train", "test")
_DEEPEST = 16
# Pillow's names of the kinds with at most 8 bits a channel; it would cut off the rest of those with more.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")

Pixels = npt.NDArray[np.uint8]
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
            file is no image or cannot be read, has more than 8 bits a channel, or sizes differ and none is given.
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
    made = from_arrays(
        *arrays[0],
        *tests,
        name=str(folder),
        classes=len(names),
        test_fraction=test_fraction,
        seed=seed,
        over=over,
    )
    return replace(made, name=folder.name, names=tuple(names))


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
    files = [(path, label) for label, paths in enumerate(classes.values()) for path in paths]
    pictures: list[Pixels] = []
    for path, _ in files:
        pictures.append(_read(path, shape, mode))
        first, this = pictures[0].shape[1:], pictures[-1].shape[1:]
        if first != this:
            raise DataError(
                f"{folder}: images must have one size, height by width; {files[0][0].relative_to(folder)} is "
                f"{first[0]}x{first[1]}, {path.relative_to(folder)} {this[0]}x{this[1]}. "
                f"Have them scaled: size=({first[0]}, {first[1]})."
            )
    return np.stack(pictures), np.array([label for _, label in files])


def _read(path: Path, shape: tuple[int, int] | None, mode: str) -> Pixels:
    """One image, [channels, height, width], levels from 0 to 255."""
    library: Any = import_module("PIL.Image")
    turn: Any = import_module("PIL.ImageOps").exif_transpose
    try:
        # Cameras write EXIF data that Pillow warns of; what matters here, the pixels, it reads or refuses.
        with (
            warnings.catch_warnings(category=UserWarning, action="ignore"),
            library.open(path, formats=FORMATS) as opened,
        ):
            kind = opened.mode
            if kind in MODES:
                opened.info.pop("transparency", None)  # of a palette: it is dropped, and need not be warned of
                picture = turn(opened).convert(mode)
    except (OSError, ValueError, SyntaxError, EOFError, library.DecompressionBombError) as error:
        raise DataError(f"{path}: the image cannot be read: {error}. Remove it, or write it again.") from error
    if kind not in MODES:
        raise DataError(f"{path}: an image has at most 8 bits a channel; this one is of kind {kind}. Convert it first.")
    if shape is not None and picture.size != shape[::-1]:
        picture = picture.resize(shape[::-1], library.Resampling.BILINEAR)
    pixels: Pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

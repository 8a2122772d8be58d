"""One image file as an array of levels, in memory that its size or the size wanted accounts for."""

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unbraid._openfile import OpenFile
from unbraid.errors import DataError

__all__ = ["MOST_TIMES", "Pixels", "read_picture"]

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # no others are tried, whatever a file's name
# Pillow's names of the kinds with at most 8 bits a channel; it would cut off the rest of those with more.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
# Photographs unpack to 10 or 20 times their size. Of a file made to fill the memory, 20 kB say 169 megapixels.
_MOST_BYTES, MOST_TIMES = 2**25, 100

Pixels = npt.NDArray[np.uint8]


def read_picture(path: Path, shape: tuple[int, int] | None, mode: str) -> Pixels:
    """Levels from 0 to 255, [channels, height, width].

    Args:
        path: the file.
        shape: height and width to scale it to; None for its own. Of a large JPEG little more than that is unpacked.
        mode: Pillow's name of the channels wanted, "RGB" or "L".

    Raises:
        DataError: it is no image, is damaged, has more than 8 bits a channel, or more pixels than its bytes account
            for.
    """
    library: Any = import_module("PIL.Image")
    turn: Any = import_module("PIL.ImageOps").exif_transpose
    try:
        file = OpenFile(path)
        # Cameras write EXIF data that Pillow warns of; what matters here, the pixels, it reads or refuses.
        with warnings.catch_warnings(), file.stream() as stream:
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", library.DecompressionBombWarning)  # the bound below is a closer one
            with library.open(stream, formats=FORMATS) as picture:
                kind = picture.mode
                _check_kind(path, kind)
                size = _check_size(path, picture, len(mode), file.size)
                if shape is not None and size > _MOST_BYTES:
                    picture.draft(None, (2 * max(shape), 2 * max(shape)))
                picture.info.pop("transparency", None)  # of a palette: it is dropped, and need not be warned of
                turn(picture, in_place=True)
                picture.load()
                if kind != mode:
                    picture = picture.convert(mode)  # the original is let go of
                if shape is not None and picture.size != shape[::-1]:
                    picture = picture.resize(shape[::-1], library.Resampling.BILINEAR)
                pixels: Pixels = np.asarray(picture, dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, library.DecompressionBombError) as error:
        raise DataError(f"{path}: the image cannot be read: {error}. Remove it, or write it again.") from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _check_kind(path: Path, kind: str) -> None:
    if kind not in MODES:
        raise DataError(f"{path}: an image has at most 8 bits a channel; this one is of kind {kind}. Convert it first.")


def _check_size(path: Path, picture: Any, channels: int, length: int) -> int:
    """The bytes that the whole takes, by its header."""
    width, height = picture.size
    size: int = width * height * max(channels, len(picture.getbands()))
    if size > max(_MOST_BYTES, MOST_TIMES * length):
        raise DataError(
            f"{path}: an image file of {length:,} bytes that unpacks to {size:,}, {height:,}x{width:,} pixels, is "
            f"refused, as it may be made to fill the memory; {MOST_TIMES} times its size is allowed. Write it smaller."
        )
    return size

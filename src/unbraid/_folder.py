"""A folder whose files change together or not at all, whenever the process is killed.

New files are written into `.writing` inside the folder. One rename to `.committed` makes them count: from
then on a file there stands for the one of the same name beside it. They are then moved into place one by one;
if that is cut short, readers look into `.committed` first, and the next writer finishes the move.

What was committed at one moment is a generation, and readers see one of them (`_generation`). Of writers one at a time
has a folder (`_claim`).
"""

import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from unbraid._generation import COMMITTED, SUMS, Generation, exists, find, listed, read
from unbraid._openfile import OpenFile
from unbraid.errors import CheckpointError

__all__ = ["SUMS", "Generation", "exists", "find", "listed", "read", "write", "write_tensors"]

WRITING = ".writing"


def write(folder: Path, files: Mapping[str, Callable[[Path], object]], *, gone: Collection[str] = ()) -> None:
    """Replace these files of the folder, all at one moment; others keep their content.

    The caller holds the folder (`claimed`).

    Args:
        folder: made where it is missing.
        files: for each name, the function that writes the file at the path given.
        gone: files that no longer belong to it, removed once the new ones are in place.

    Raises:
        CheckpointError: where the system refuses: no space, no permission, a file in the way. It says whether
            what was there before still is, or the new files count already.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _settle(folder)
        writing = folder / WRITING
        if writing.is_dir() and not writing.is_symlink():  # cut short before its commit: worthless
            shutil.rmtree(writing)
        else:  # rmtree would open a pipe, and wait
            writing.unlink(missing_ok=True)
        writing.mkdir(mode=0o700)  # nobody else reads, or swaps, what is not finished
        sums = {name: digest for name, digest in listed(folder).items() if name not in gone}
        for name, save in files.items():
            save(writing / name)
            sums[name] = OpenFile(writing / name).sha256()
        (writing / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
        for path in (*writing.iterdir(), writing):
            _sync(path)
        writing.rename(folder / COMMITTED)  # the moment at which the new files count
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written: {error.strerror or error}. "
            "What it held before, if anything, is untouched: make room or choose another folder, and try again."
        ) from error
    try:
        _sync(folder)
        _settle(folder)
        for name in gone:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: its new files count, but the folder cannot be put in order: {error.strerror or error}. "
            f"What still lies in {COMMITTED} is read from there."
        ) from error


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; what cannot be written raises OSError."""
    # Copies, because safetensors refuses tensors that share memory, as tied weights do.
    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(own, path)
    except SafetensorError as error:  # how it reports a full disk
        raise OSError(str(error)) from error


def _settle(folder: Path) -> None:
    """Move committed files into place. A second call goes on where the first was cut short."""
    committed = folder / COMMITTED
    if committed.is_symlink():
        raise CheckpointError(f"{committed}: this is a link, which unbraid never makes: what it shows is not moved.")
    if committed.exists():
        for path in committed.iterdir():
            os.replace(path, folder / path.name)
        _sync(folder)  # the moves must be on disk before the folder that stands for them is gone
        committed.rmdir()


def _sync(path: Path) -> None:
    """Wait until the file or folder is on disk, so that a power cut cannot undo the order of what follows."""
    if path.is_dir() and os.name != "posix":  # only POSIX can open a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

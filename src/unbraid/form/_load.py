"""`load`: of the class it reads a saved form, of a form it gives that form the weights of a folder."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, final, runtime_checkable

import torch

from unbraid._modes import outside_modes
from unbraid.form._store import load
from unbraid.form._weights import load_into

if TYPE_CHECKING:
    from unbraid.form._form import ResidualForm


@runtime_checkable
class Load(Protocol):
    """How `load` is called."""

    def __call__(
        self, folder: Path | str, *, stream: bool = False, device: torch.device | str = "cpu"
    ) -> "ResidualForm":
        """See `Loading`."""
        ...


@final
class Loading:
    """What `load` means on the class, and on a form."""

    def __get__(self, form: "ResidualForm | None", owner: type["ResidualForm"]) -> Load:
        return saved if form is None else partial(weights, form)


@outside_modes
def saved(folder: Path | str, *, stream: bool = False, device: torch.device | str = "cpu") -> "ResidualForm":
    """Read a saved form; the model's code is not needed, and nothing in the folder is run or unpickled.

    Every file is checked against SHA256SUMS, and all are of one moment, whoever saves there meanwhile. The form
    computes the same bits as the one that was saved.

    Outputs that were a class of the model's library come back as a dict of their fields.

    Args:
        folder: what `save` wrote.
        stream: leave the weights in the file: each segment reads its own when its turn comes, and lets go of them. The
            file is held open, so that it stays as it is, and takes its place on the disk, until the form is let go of.
        device: where it is to run.

    Raises:
        CheckpointError: a file is missing or damaged, or would run code when read.
    """
    return load(Path(folder), stream=stream).to(device)


@outside_modes
def weights(
    form: "ResidualForm", folder: Path | str, *, stream: bool = False, device: torch.device | str = "cpu"
) -> "ResidualForm":
    """The form with the weights of a folder, such as one traced with device="meta" has none.

    Names, sizes and the lengths of the files are checked now, without reading the weights;
    `form.verify(args)` then compares the form with its graph before the cut.

    Args:
        form: a traced form.
        folder: a .safetensors file, or a folder of them as transformers and timm write it, sharded or not.
        stream: leave the weights in the files: each segment reads its own when its turn comes, forward and backward,
            and lets go of them. Memory then holds the activations and the weights of one segment.
        device: where it is to run; what is read goes there.

    Raises:
        CheckpointError: a file is damaged, or lacks a tensor, or has one of other sizes; it is named.
    """
    return load_into(form, Path(folder), stream=stream, device=torch.device(device))

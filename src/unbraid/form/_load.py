"""A saved form, read and put together again."""

from dataclasses import replace
from pathlib import Path

import torch

from unbraid import saved
from unbraid._modes import outside_modes
from unbraid.capture import Capture
from unbraid.form._assemble import assemble
from unbraid.form._form import ResidualForm
from unbraid.saved import Facts


@outside_modes
def load(folder: Path | str, *, stream: bool = False, device: torch.device | str = "cpu") -> ResidualForm:
    """Read a saved form; the model's code is not needed, and nothing in the folder is run or unpickled.

    Every file is checked against SHA256SUMS, and all are of one moment, whoever saves there meanwhile. The form
    computes the same bits as the one that was saved.

    Outputs that were a class of the model's library come back as a dict of their fields.

    Args:
        folder: what `ResidualForm.save` wrote.
        stream: leave the weights in the file: each segment reads its own when its turn comes, and lets go of them. The
            file is held open, so that it stays as it is, and takes its place on the disk, until the form is let go of.
        device: where it is to run.

    Raises:
        CheckpointError: a file is missing or damaged, or would run code when read.
    """
    return saved.load(Path(folder), _put_together, stream=stream).to(device)


def _put_together(captured: Capture, facts: Facts) -> ResidualForm:
    """The form that was captured, with the edits that were made since."""
    form = assemble(captured, None, facts.learned, facts.layers, facts.skips)
    form = form.split("heads" if facts.heads else None)
    silent = tuple(form.blocks[index] for index in facts.silent)
    form = replace(form, tolerance=facts.tolerance, silent=silent)
    form = form.reorder(facts.moved) if facts.moved else form
    form = form.without(*facts.deletions) if facts.deletions else form
    return replace(form, error=facts.error, notes=facts.notes)

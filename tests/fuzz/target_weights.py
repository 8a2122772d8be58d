"""Weights for a model: `--weights`, safetensors and torch's own files."""

import io
import os
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save

from fuzz._changes import changed_bytes, changed_safetensors, changed_zip
from fuzz._source import Source, often, pick


class Runs:
    """Unpickling this makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("/tmp/unbraid-fuzz-ran",)


@cache
def state() -> dict[str, torch.Tensor]:
    linear = torch.nn.Linear(3, 2)
    return {name: torch.full_like(value, 0.5) for name, value in linear.state_dict().items()}


@cache
def pickles() -> tuple[bytes, ...]:
    odd = torch.eye(2).to_sparse()
    made = []
    kinds = (state(), {**state(), "weight": Runs()}, Runs(), [1, 2], {**state(), "bias": odd}, {1: state()["bias"]})
    for held in kinds:
        for zipped in (True, False):
            file = io.BytesIO()
            torch.save(held, file, _use_new_zipfile_serialization=zipped)
            made.append(file.getvalue())
    return tuple(made)


def case(source: Source, folder: Path):
    from unbraid.cli.models._weights import load_weights

    if often(source):
        path = folder / "weights.safetensors"
        path.write_bytes(changed_safetensors(source, save(state())))
    else:
        path = folder / "weights.pt"
        data = pick(source, pickles())
        if often(source, 4):
            member = lambda source, _, content: changed_bytes(source, content)  # noqa: E731
            data = changed_zip(source, data, member) if data[:2] == b"PK" else changed_bytes(source, data)
        path.write_bytes(data)
    return lambda: load_weights(torch.nn.Linear(3, 2), path)

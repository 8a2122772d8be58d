"""Data in safetensors files: `data.load`."""

from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save

from fuzz._changes import changed_safetensors
from fuzz._source import Source, pick


@cache
def seeds() -> tuple[bytes, ...]:
    x = torch.arange(12.0).reshape(6, 2)
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    return save({"x": x, "y": y}), save({"x": x.bfloat16(), "y": y.to(torch.uint8), "x_test": x[:2], "y_test": y[:2]})


def case(source: Source, folder: Path):
    from unbraid.data import load

    path = folder / "data.safetensors"
    path.write_bytes(changed_safetensors(source, pick(source, seeds())))
    return lambda: load(path)

"""Tokens in .npy arrays and texts: `data.tokens`."""

import io
from functools import cache
from pathlib import Path

import numpy as np

from fuzz._changes import changed_bytes, changed_header
from fuzz._source import Source, often, pick


@cache
def seeds() -> tuple[bytes, ...]:
    made = []
    for array in (
        np.arange(24),
        np.arange(24, dtype=np.uint16).reshape(2, 12),
        np.asfortranarray(np.eye(6, dtype=int)),
    ):
        file = io.BytesIO()
        np.save(file, array)
        made.append(file.getvalue())
    return tuple(made)


def case(source: Source, folder: Path):
    from unbraid.data import tokens

    positions = source.number(0, 8)
    if often(source, 5):
        path = folder / "tokens.npy"
        path.write_bytes(changed_header(source, pick(source, seeds())))
        return lambda: tokens(path, positions)
    path = folder / "text.txt"
    path.write_bytes(changed_bytes(source, "Grüße, one and two and three".encode()))
    return lambda: tokens(path, positions, encode=lambda text: list(text.encode()))

"""Data in .npz archives: `data.load`."""

import io
from functools import cache
from pathlib import Path

import numpy as np

from fuzz._changes import changed_header, changed_zip
from fuzz._source import Source, pick


@cache
def seeds() -> tuple[bytes, ...]:
    numbers = np.random.default_rng(0)
    x, y = numbers.normal(size=(6, 2)).astype(np.float32), np.arange(6) % 2
    made = []
    for save in (np.savez, np.savez_compressed):
        for more in ({}, {"x_test": x[:3], "y_test": y[:3]}):
            file = io.BytesIO()
            save(file, x=x, y=y, **more)
            made.append(file.getvalue())
    return tuple(made)


def case(source: Source, folder: Path):
    from unbraid.data import load

    path = folder / "data.npz"
    path.write_bytes(changed_zip(source, pick(source, seeds()), lambda source, _, data: changed_header(source, data)))
    over = pick(source, ("all", "channel", "feature", "nothing"))
    return lambda: load(path, over=over)

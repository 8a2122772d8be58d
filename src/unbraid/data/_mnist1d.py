"""MNIST-1D: ten classes of 40-sample signals, generated on the spot."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import numpy as np

from unbraid.data._arrays import from_arrays
from unbraid.data._dataset import Dataset
from unbraid.data._optional import needs

__all__ = ["mnist1d"]


def mnist1d(*, seed: int = 42) -> Dataset:
    """4,000 and 1,000 examples of length 40, of 10 classes, by the defaults of the package `mnist1d`.

    Greydanus and Kobak (2020), "Scaling down deep learning": the data set of the notebooks of Prince (2023).
    It is generated, which takes about a second; nothing is downloaded.

    Args:
        seed: of the generator; 42 is the package's own.

    Raises:
        DataError: where the package is not installed.
    """
    with needs("mnist1d", extra="data", purpose="MNIST-1D"):
        generator = import_module("mnist1d.data")
    arguments = generator.get_dataset_args()
    arguments.seed = seed
    with _global_generators_kept():
        # Not `get_dataset`: that one downloads a pickle and loads it.
        arrays = generator.make_dataset(arguments)
        return from_arrays(arrays["x"], arrays["y"], arrays["x_test"], arrays["y_test"], name="mnist1d")


@contextmanager
def _global_generators_kept() -> Iterator[None]:
    """Give numpy's and Python's global generators their state back.

    make_dataset seeds both. A caller who draws from them would find the same "random" numbers after each
    call, and the caller's own seeding undone.
    """
    python, array = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)  # noqa: NPY002

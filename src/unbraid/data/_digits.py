"""scikit-learn's handwritten digits: real images that come with the package."""

from importlib import import_module

import numpy as np

from unbraid.data._arrays import from_arrays
from unbraid.data._dataset import Dataset
from unbraid.data._optional import needs

__all__ = ["digits"]


def digits(*, test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """1,797 handwritten digits of 10 classes, [1, 8, 8], grey levels from 0 to 16 before standardisation.

    The test part of UCI's "Optical recognition of handwritten digits" (Alpaydin and Kaynak 1998), as
    scikit-learn holds it: nothing is downloaded. With the defaults, 1,438 images to train on and 359 to
    test on.

    Args:
        test_fraction: the share of images to set apart for testing.
        seed: of the generator that draws them.

    Raises:
        DataError: where scikit-learn is not installed.
    """
    with needs("scikit-learn", extra="data", purpose="the handwritten digits"):
        datasets = import_module("sklearn.datasets")
    bunch = datasets.load_digits()
    return from_arrays(
        np.asarray(bunch.images)[:, None],  # one channel
        np.asarray(bunch.target),
        name="digits",
        test_fraction=test_fraction,
        seed=seed,
    )

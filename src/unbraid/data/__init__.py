"""Labelled examples, standardised on their training part: built in, from arrays, a file or a folder of images.

`tokens` gives those of language models.
"""

from unbraid.data._arrays import from_arrays
from unbraid.data._dataset import Batches, Dataset, Examples, batches
from unbraid.data._digits import digits
from unbraid.data._files import load
from unbraid.data._images import images
from unbraid.data._mnist1d import mnist1d
from unbraid.data._names import BUILT_IN, by_name
from unbraid.data._tokens import tokens

__all__ = [
    "BUILT_IN",
    "Batches",
    "Dataset",
    "Examples",
    "batches",
    "by_name",
    "digits",
    "from_arrays",
    "images",
    "load",
    "mnist1d",
    "tokens",
]

"""What every result is: rows, table, plot and error; targets, examples, and the measure of exactness."""

from unbraid.results._exactness import check_error, check_sum, pieces, relative_error, sum_error, tolerance
from unbraid.results._examples import Examples, examples, said_of
from unbraid.results._result import Brief, Result, ScalarWriter, finite
from unbraid.results._target import (
    Target,
    classification_loss,
    constant,
    first_float,
    largest,
    loss_target,
    scalar,
    target_of,
)

__all__ = [
    "Brief",
    "Examples",
    "Result",
    "ScalarWriter",
    "Target",
    "check_error",
    "check_sum",
    "classification_loss",
    "constant",
    "examples",
    "finite",
    "first_float",
    "largest",
    "loss_target",
    "pieces",
    "relative_error",
    "said_of",
    "scalar",
    "sum_error",
    "target_of",
    "tolerance",
]

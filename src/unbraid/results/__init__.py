"""What every result is: rows, table, plot and error; targets, examples, and the measure of exactness."""

from unbraid.results._exactness import check_error, check_sum, relative_error, sum_error, tolerance
from unbraid.results._examples import Examples, examples, said_of
from unbraid.results._result import Brief, Result, ScalarWriter, finite
from unbraid.results._rows import Row, as_rows, fill, numbered, plain
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
    "Row",
    "ScalarWriter",
    "Target",
    "as_rows",
    "check_error",
    "check_sum",
    "classification_loss",
    "constant",
    "examples",
    "fill",
    "finite",
    "first_float",
    "largest",
    "loss_target",
    "numbered",
    "plain",
    "relative_error",
    "said_of",
    "scalar",
    "sum_error",
    "target_of",
    "tolerance",
]

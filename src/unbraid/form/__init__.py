"""The residual form of any PyTorch model: found from the computation graph, cut, and checked.

`trace` finds the residual additions of a model; `chain` cuts a plain one at its layers. Both return a `ResidualForm`,
which every analysis takes.
"""

from unbraid.form._aim import TARGET, explained
from unbraid.form._aside import Draws, drawing
from unbraid.form._bare import bare
from unbraid.form._batches import Batch, Batches, Keep, Metric, each_batch, each_row
from unbraid.form._block import Block
from unbraid.form._channels import channel_dimension
from unbraid.form._equation import Equation
from unbraid.form._exactness import check_error, check_sum, relative_error, sum_error, tolerance
from unbraid.form._examples import Examples, examples, said_of
from unbraid.form._form import ResidualForm
from unbraid.form._gradients import gradient_error
from unbraid.form._heads import Split
from unbraid.form._linearised import Linearised
from unbraid.form._log import Log
from unbraid.form._meta import empty_weights
from unbraid.form._place import scope
from unbraid.form._result import Brief, Result, ScalarWriter, finite
from unbraid.form._rows import Row, as_html, as_rows, fill, numbered, plain
from unbraid.form._signature import Signature, as_call
from unbraid.form._stateful import by_chance, refuse_stateful
from unbraid.form._sweep import Feed, Swept, lesioned, sweep
from unbraid.form._target import (
    Target,
    classification_loss,
    first_float,
    largest,
    loss_target,
    scalar,
)
from unbraid.form._tensors import read_tensors, stored
from unbraid.form._trace import chain, trace
from unbraid.form._untouched import run_untouched, untouched
from unbraid.form._verify import Verification
from unbraid.form._which import BlockLike, BranchLike, branch_of, index_of, part_name, part_of

__all__ = [
    "TARGET",
    "Batch",
    "Batches",
    "Block",
    "BlockLike",
    "BranchLike",
    "Brief",
    "Draws",
    "Equation",
    "Examples",
    "Feed",
    "Keep",
    "Linearised",
    "Log",
    "Metric",
    "ResidualForm",
    "Result",
    "Row",
    "ScalarWriter",
    "Signature",
    "Split",
    "Swept",
    "Target",
    "Verification",
    "as_call",
    "as_html",
    "as_rows",
    "bare",
    "branch_of",
    "by_chance",
    "chain",
    "channel_dimension",
    "check_error",
    "check_sum",
    "classification_loss",
    "drawing",
    "each_batch",
    "each_row",
    "empty_weights",
    "examples",
    "explained",
    "fill",
    "finite",
    "first_float",
    "gradient_error",
    "index_of",
    "largest",
    "lesioned",
    "loss_target",
    "numbered",
    "part_name",
    "part_of",
    "plain",
    "read_tensors",
    "refuse_stateful",
    "relative_error",
    "run_untouched",
    "said_of",
    "scalar",
    "scope",
    "stored",
    "sum_error",
    "sweep",
    "tolerance",
    "trace",
    "untouched",
]

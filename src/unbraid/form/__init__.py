"""The residual form of any PyTorch model: found from the computation graph, cut, and checked.

`trace` finds the residual additions of a model; `chain` cuts a plain one at its layers. Both return a `ResidualForm`,
which every analysis takes.
"""

from unbraid.form._assemble import assemble
from unbraid.form._core import Form
from unbraid.form._empty import refuse_empty_weights
from unbraid.form._form import ResidualForm
from unbraid.form._gradients import gradient_error
from unbraid.form._linearised import Linearised
from unbraid.form._load import load
from unbraid.form._only import inputs_of
from unbraid.form._target_segment import TARGET, explained
from unbraid.form._trace import chain, trace
from unbraid.form._verify import Verification

__all__ = [
    "TARGET",
    "Form",
    "Linearised",
    "ResidualForm",
    "Verification",
    "assemble",
    "chain",
    "explained",
    "gradient_error",
    "inputs_of",
    "load",
    "refuse_empty_weights",
    "trace",
]

"""The weighted graph that describes a model: streams, the segments between them, and the residual additions.

It is immutable and does nothing by itself: `unbraid.walk` runs and differentiates it, `unbraid.form` makes it.
"""

from unbraid.graph._modules import runnable
from unbraid.graph._operators import (
    POINTWISE,
    SHAPE_ONLY,
    Carrier,
    affine,
    carrier,
    is_float,
    jointly_affine,
    mixing,
    name_of,
    shape_only,
    takes_all,
    values_read,
)
from unbraid.graph._types import (
    SKIP,
    Add,
    Code,
    Graph,
    Order,
    Role,
    Segment,
    Step,
    Stream,
    differentiable,
    makes,
    needed,
    reads,
    rewired,
    subgraph,
)

__all__ = [
    "POINTWISE",
    "SHAPE_ONLY",
    "SKIP",
    "Add",
    "Carrier",
    "Code",
    "Graph",
    "Order",
    "Role",
    "Segment",
    "Step",
    "Stream",
    "affine",
    "carrier",
    "differentiable",
    "is_float",
    "jointly_affine",
    "makes",
    "mixing",
    "name_of",
    "needed",
    "reads",
    "rewired",
    "runnable",
    "shape_only",
    "subgraph",
    "takes_all",
    "values_read",
]

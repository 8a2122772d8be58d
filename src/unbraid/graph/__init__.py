"""The weighted graph that describes a model: streams, the segments between them, and the residual additions.

It is immutable and does nothing by itself: `unbraid.walk` runs and differentiates it, `unbraid.form` makes it.
"""

from unbraid.graph._channels import channel_dimension
from unbraid.graph._device import made_on, on_device
from unbraid.graph._modules import runnable
from unbraid.graph._types import (
    SKIP,
    Add,
    BranchIndex,
    Graph,
    Order,
    Removal,
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
    "SKIP",
    "Add",
    "BranchIndex",
    "Graph",
    "Order",
    "Removal",
    "Role",
    "Segment",
    "Step",
    "Stream",
    "channel_dimension",
    "differentiable",
    "made_on",
    "makes",
    "needed",
    "on_device",
    "reads",
    "rewired",
    "runnable",
    "subgraph",
]

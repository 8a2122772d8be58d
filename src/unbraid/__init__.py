"""Build residual networks, find the residual connections in any PyTorch model, and take the model apart, exactly."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unbraid import data, draw, nn, report, train
    from unbraid.errors import (
        CheckpointError,
        DataError,
        InexactError,
        NotResidualError,
        ShapeError,
        TraceError,
        UnbraidError,
    )
    from unbraid.form import Block, ResidualForm, chain, trace
    from unbraid.unravel import Terms, unravel

# Each public name and the module that holds it. Names are imported when first used: `unbraid --help` needs no torch,
# and a program pays for the parts that it uses.
_HOME = {
    "Block": "unbraid.form",
    "CheckpointError": "unbraid.errors",
    "DataError": "unbraid.errors",
    "InexactError": "unbraid.errors",
    "NotResidualError": "unbraid.errors",
    "ResidualForm": "unbraid.form",
    "ShapeError": "unbraid.errors",
    "Terms": "unbraid.unravel",
    "TraceError": "unbraid.errors",
    "UnbraidError": "unbraid.errors",
    "chain": "unbraid.form",
    "trace": "unbraid.form",
    "unravel": "unbraid.unravel",
}
_MODULES = ("data", "draw", "nn", "report", "train")

__version__ = version("unbraid")
__all__ = [
    "Block",
    "CheckpointError",
    "DataError",
    "InexactError",
    "NotResidualError",
    "ResidualForm",
    "ShapeError",
    "Terms",
    "TraceError",
    "UnbraidError",
    "chain",
    "data",
    "draw",
    "nn",
    "report",
    "trace",
    "train",
    "unravel",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _MODULES:
        return import_module(f"unbraid.{name}")
    raise AttributeError(f"module 'unbraid' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""Build residual networks, find the residual connections in any PyTorch model, and take the model apart, exactly."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from unbraid.errors import (
    CheckpointError,
    DataError,
    InexactError,
    NotResidualError,
    RankError,
    ShapeError,
    TargetError,
    TraceError,
    UnbraidError,
)
from unbraid.form import Block, ResidualForm, chain, empty_weights, trace
from unbraid.gradients import DerivativeChain, Diagnosis, Signal, derivative_chain, diagnose, signal

# Imported at once, not on demand: a function and a package share this name, and the function must win.
from unbraid.lesion import LesionStudy, ReorderStudy, SubsetStudy, lesion, reorderings, subsets
from unbraid.paths import (
    GradientParts,
    GradientSpectrum,
    MeanSpectrum,
    Paths,
    ValueSpectrum,
    all_paths,
    gradient_parts,
    gradient_spectrum,
    mean_spectrum,
    sample_paths,
    top_paths,
    value_spectrum,
)
from unbraid.prune import Pruning, Ranking, prune, rank
from unbraid.report import report
from unbraid.unravel import Terms, attribute, unravel

if TYPE_CHECKING:
    from unbraid import data, draw, gradients, nn, train

__version__ = version("unbraid")
__all__ = [
    "Block",
    "CheckpointError",
    "DataError",
    "DerivativeChain",
    "Diagnosis",
    "GradientParts",
    "GradientSpectrum",
    "InexactError",
    "LesionStudy",
    "MeanSpectrum",
    "NotResidualError",
    "Paths",
    "Pruning",
    "RankError",
    "Ranking",
    "ReorderStudy",
    "ResidualForm",
    "ShapeError",
    "Signal",
    "SubsetStudy",
    "TargetError",
    "Terms",
    "TraceError",
    "UnbraidError",
    "ValueSpectrum",
    "all_paths",
    "attribute",
    "chain",
    "data",
    "derivative_chain",
    "diagnose",
    "draw",
    "empty_weights",
    "gradient_parts",
    "gradient_spectrum",
    "gradients",
    "lesion",
    "mean_spectrum",
    "nn",
    "prune",
    "rank",
    "reorderings",
    "report",
    "sample_paths",
    "signal",
    "subsets",
    "top_paths",
    "trace",
    "train",
    "unravel",
    "value_spectrum",
]

# The packages that a program pays for when it uses them.
_ON_DEMAND = frozenset({"data", "draw", "gradients", "nn", "train"})


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        return import_module(f"unbraid.{name}")
    raise AttributeError(f"module 'unbraid' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

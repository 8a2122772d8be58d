"""Build residual networks, find the residual connections in any PyTorch model, and take the model apart, exactly."""

from importlib import import_module

from unbraid._turns import turn

TYPE_CHECKING = False  # a checker of types takes it for true; to ask `typing` costs more than all else here
if TYPE_CHECKING:
    from unbraid import data, draw, gradients, nn, train
    from unbraid.capture import empty_weights
    from unbraid.circuits import Circuit, EdgeStudy, PathEffect, edges, path_effect
    from unbraid.discover import Block
    from unbraid.errors import (
        ChanceError,
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
    from unbraid.form import ResidualForm, chain, load, trace
    from unbraid.gradients import DerivativeChain, Diagnosis, Signal, derivative_chain, diagnose, signal
    from unbraid.lesions import LesionStudy, ReorderStudy, SubsetStudy, lesion, reorderings, subsets
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
    from unbraid.pruning import Pruning, Ranking, prune, rank
    from unbraid.reports import report
    from unbraid.terms import Terms, attribute, unravel

    __version__: str

__all__ = [
    "Block",
    "ChanceError",
    "CheckpointError",
    "Circuit",
    "DataError",
    "DerivativeChain",
    "Diagnosis",
    "EdgeStudy",
    "GradientParts",
    "GradientSpectrum",
    "InexactError",
    "LesionStudy",
    "MeanSpectrum",
    "NotResidualError",
    "PathEffect",
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
    "edges",
    "empty_weights",
    "gradient_parts",
    "gradient_spectrum",
    "gradients",
    "lesion",
    "load",
    "mean_spectrum",
    "nn",
    "path_effect",
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

# Nothing is imported before it is used: torch alone takes seconds, and a command must be able to stop meanwhile.
_NAMES = {
    "unbraid.errors": """
        ChanceError CheckpointError DataError InexactError NotResidualError RankError ShapeError TargetError
        TraceError UnbraidError
    """,
    "unbraid.capture": "empty_weights",
    "unbraid.circuits": "Circuit EdgeStudy PathEffect edges path_effect",
    "unbraid.discover": "Block",
    "unbraid.form": "ResidualForm chain load trace",
    "unbraid.gradients": "DerivativeChain Diagnosis Signal derivative_chain diagnose signal",
    "unbraid.lesions": "LesionStudy ReorderStudy SubsetStudy lesion reorderings subsets",
    "unbraid.paths": """
        GradientParts GradientSpectrum MeanSpectrum Paths ValueSpectrum all_paths gradient_parts
        gradient_spectrum mean_spectrum sample_paths top_paths value_spectrum
    """,
    "unbraid.pruning": "Pruning Ranking prune rank",
    "unbraid.reports": "report",
    "unbraid.terms": "Terms attribute unravel",
}
_HOME: dict[str, str] = {}
for _package, _names in _NAMES.items():
    _HOME |= dict.fromkeys(_names.split(), _package)
_PACKAGES = frozenset(
    """
    capture circuits cli data discover draw errors form freeze gradients graph lesions nn paths pruning ranks reports
    results saved sweep terms train walk
    """.split()
)


def __getattr__(name: str) -> object:
    if name in _HOME or name in _PACKAGES:
        with turn():  # a process that is forked meanwhile would wait for this import for ever
            package = import_module(_HOME.get(name, f"unbraid.{name}"))
        value = getattr(package, name) if name in _HOME else package
    elif name == "__version__":
        from importlib.metadata import version

        value = version("unbraid")
    else:
        raise AttributeError(f"module 'unbraid' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""The gradient of a loaded model by path length, for the verb `paths`."""

from typing import TYPE_CHECKING

from unbraid.cli.models._model import Loaded

if TYPE_CHECKING:
    from unbraid import ResidualForm
    from unbraid.reports.sections._paths import PathFacts
    from unbraid.results import Target

__all__ = ["LARGEST", "path_facts"]

LARGEST = "the largest output"


def path_facts(loaded: Loaded, form: "ResidualForm", target: "Target", said: str, per_length: int) -> "PathFacts":
    """The spectrum of a target, and the norms of `per_length` random paths of each length where that is not 0."""
    from unbraid.paths import gradient_spectrum, sample_paths
    from unbraid.reports.sections._paths import PathFacts

    spectrum = gradient_spectrum(form, loaded.args, loaded.kwargs, target=target)
    sampled = None
    if per_length:
        drawn = sample_paths(form, loaded.args, loaded.kwargs, target=target, per_length=per_length)
        sampled = drawn.mean_norms()[:, 0].tolist()
    return PathFacts.of(loaded.name, said, spectrum, sampled)

"""The gradient of a loaded model by path length, for the verb `paths` and for reports."""

from typing import TYPE_CHECKING

from unbraid.cli._model import Loaded

if TYPE_CHECKING:
    from torch import Tensor

    from unbraid import ResidualForm
    from unbraid.form import Target
    from unbraid.report.sections import PathFacts

__all__ = ["LARGEST", "largest", "path_facts"]

LARGEST = "the largest output"


def largest(output: "Tensor") -> "Tensor":
    """The largest output of each example, at the last position where there are several."""
    rows = output[:, -1] if output.ndim == 3 else output
    return rows.reshape(len(output), -1).max(dim=1).values


def path_facts(
    loaded: Loaded, form: "ResidualForm", target: "Target", said: str, per_length: int, python: str = ""
) -> "PathFacts":
    """The spectrum of a target, and the norms of `per_length` random paths of each length where that is not 0."""
    from unbraid.paths import gradient_spectrum, sample_paths
    from unbraid.report.sections import PathFacts

    found = gradient_spectrum(form, loaded.args, loaded.kwargs, target=target)
    sampled = None
    if per_length:
        drawn = sample_paths(form, loaded.args, loaded.kwargs, target=target, per_length=per_length)
        sampled = drawn.mean_norms()[:, 0].tolist()
    return PathFacts(
        network=loaded.name,
        target=said,
        counts=found.counts,
        norms=found.norms.tolist(),
        share=found.share.tolist(),
        effective=found.effective,
        error=found.error,
        examples=found.gradients.shape[1],
        sampled=sampled,
        python=python,
    )

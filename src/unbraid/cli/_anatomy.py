"""What the report says of one model: its residual form, the terms of its output, its gradient by path length."""

from dataclasses import replace

import torch

import unbraid
from unbraid.cli._model import Loaded
from unbraid.cli._spectrum import LARGEST, largest, path_facts
from unbraid.report import Section, sections

__all__ = ["anatomy"]


_EXAMPLES = 32  # of which gradients are split: their cost grows with the square of the depth


def anatomy(loaded: Loaded, per_length: int = 0) -> list[Section]:
    """Trace and unravel a model on its inputs; the sections on the network, the terms and the paths.

    Args:
        loaded: the model.
        per_length: how many random paths of each length to compare the spectrum with.
    """
    form = unbraid.trace(loaded.model, loaded.args, loaded.kwargs)
    terms = unbraid.unravel(form, loaded.args, loaded.kwargs)
    equation = form.equation()
    network = sections.NetworkFacts(
        name=loaded.name,
        blocks=form.blocks,
        paths=sum(form.path_counts()),
        error=form.error,
        dtype=str(form.dtype).removeprefix("torch."),
        equation=equation.text,
        latex=equation.latex,
        python=f"{loaded.python}\nform = unbraid.trace(model, x)\nprint(form)",
    )
    found = sections.TermFacts(
        network=loaded.name,
        names=list(terms.names),
        norms=[float(value.flatten(1).norm(dim=1).mean()) for value in terms.values],
        error=terms.error,
        examples=len(terms.values[0]),
        python="terms = unbraid.unravel(form, x)\nprint(terms)",
    )
    few = replace(loaded, args=tuple(_first(value) for value in loaded.args)) if not loaded.kwargs else loaded
    target = "lambda output: output.max(1).values"
    python = f"spectrum = unbraid.gradient_spectrum(form, x[:{_EXAMPLES}], target={target})\nprint(spectrum.table())"
    by_length = path_facts(few, form, largest, LARGEST, per_length, python)
    return [sections.network(network), sections.terms(found), sections.paths(by_length)]


def _first(value: object) -> object:
    return value[:_EXAMPLES] if isinstance(value, torch.Tensor) and value.ndim else value

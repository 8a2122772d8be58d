"""What the report says of one model: its residual form, and the terms of its output."""

import unbraid
from unbraid.cli._model import Loaded
from unbraid.report import Section, sections

__all__ = ["anatomy"]


def anatomy(loaded: Loaded) -> list[Section]:
    """Trace and unravel a model on its inputs; the sections on the network and on the terms."""
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
    return [sections.network(network), sections.terms(found)]

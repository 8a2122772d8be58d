"""`unbraid unravel`: the terms of a model's output."""

from typing import Annotated

import typer

from unbraid.cli._console import JSON, show, tell
from unbraid.cli._trace import Model, Pretrained, Shape, Weights
from unbraid.cli.models._model import Wish, explain, load, parse_shape

__all__ = ["unravel"]


def unravel(
    model: Model = None,
    input_shape: Shape = None,
    examples: Annotated[int, typer.Option(min=1, help="How many examples to run.")] = 8,
    pretrained: Pretrained = False,
    weights: Weights = None,
    as_json: JSON = False,
) -> None:
    """Split the stream that reaches the output into the input's term and one per block (Equation 11.5)."""
    if model is None:
        tell(f"unbraid unravel: which model?\n{explain()}")
        raise typer.Exit(2)
    loaded = load(model, Wish(parse_shape(input_shape), pretrained, examples), weights)
    import unbraid

    form = unbraid.trace(loaded.model, loaded.args, loaded.kwargs)
    terms = unbraid.unravel(form, loaded.args, loaded.kwargs)
    show(terms.table(), {"model": loaded.name, **terms.to_dict()}, as_json=as_json)

"""`unbraid trace`: the residual form of a model."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from unbraid.cli._complete import models
from unbraid.cli._console import JSON, show, tell
from unbraid.cli.models._model import Wish, explain, load, parse_shape

__all__ = ["Model", "Pretrained", "Shape", "Weights", "trace"]


class Tracer(StrEnum):
    """How a computation is captured."""

    AUTO = "auto"
    EXPORT = "export"
    DISPATCH = "dispatch"


Model = Annotated[
    str | None,
    typer.Argument(
        help="A folder made by `unbraid train`, FILE.py:FACTORY (whose code is run), timm:NAME, torchvision:NAME or "
        "hf:NAME.",
        show_default=False,
        autocompletion=models,
    ),
]
Shape = Annotated[
    str | None, typer.Option("--input-shape", help="The input's sizes, batch first: 1,3,224,224.", show_default=False)
]
Pretrained = Annotated[bool, typer.Option("--pretrained", help="Fetch trained weights (timm, torchvision).")]

Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="A .safetensors file, or a torch one without code, to load.", show_default=False),
]


def trace(
    model: Model = None,
    input_shape: Shape = None,
    pretrained: Pretrained = False,
    weights: Weights = None,
    meta: Annotated[bool, typer.Option("--meta", help="The structure alone: no memory for weights, no check.")] = False,
    tracer: Annotated[Tracer, typer.Option(help="How the computation is captured.")] = Tracer.AUTO,
    graph: Annotated[bool, typer.Option("--graph", help="Draw trunk and branches instead of the table.")] = False,
    as_json: JSON = False,
) -> None:
    """Find every residual connection of a model and print its blocks, with the measured error."""
    if model is None:
        tell(f"unbraid trace: which model?\n{explain()}")
        raise typer.Exit(2)
    if meta and (weights is not None or pretrained):
        raise ValueError("--meta traces the structure alone; it takes no weights.")
    loaded = load(model, Wish(parse_shape(input_shape), pretrained, meta=meta), weights)
    import unbraid

    form = unbraid.trace(loaded.model, loaded.args, loaded.kwargs, tracer=tracer.value)
    show(form.tree() if graph else form.table(), {"model": loaded.name, **form.to_dict()}, as_json=as_json)

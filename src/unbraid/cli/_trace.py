"""`unbraid trace`: the residual form of a model."""

from typing import Annotated

import typer

from unbraid.cli._console import JSON, show, tell
from unbraid.cli._model import explain, load, parse_shape

__all__ = ["Model", "Pretrained", "Shape", "trace"]

Model = Annotated[
    str | None,
    typer.Argument(
        help="A folder made by `unbraid train`, FILE.py:FACTORY (whose code is run), timm:NAME, torchvision:NAME or "
        "hf:NAME.",
        show_default=False,
    ),
]
Shape = Annotated[
    str | None, typer.Option("--input-shape", help="The input's sizes, batch first: 1,3,224,224.", show_default=False)
]
Pretrained = Annotated[bool, typer.Option("--pretrained", help="Fetch trained weights (timm, torchvision).")]


def trace(
    model: Model = None, input_shape: Shape = None, pretrained: Pretrained = False, as_json: JSON = False
) -> None:
    """Find every residual connection of a model and print its blocks, with the measured error."""
    if model is None:
        tell(f"unbraid trace: which model?\n{explain()}")
        raise typer.Exit(2)
    loaded = load(model, shape=parse_shape(input_shape), pretrained=pretrained)
    import unbraid

    form = unbraid.trace(loaded.model, loaded.args, loaded.kwargs)
    show(form.table(), {"model": loaded.name, **form.to_dict()}, as_json=as_json)

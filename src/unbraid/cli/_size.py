"""The option by which images are scaled."""

from typing import Annotated

import typer

__all__ = ["Size"]

Size = Annotated[
    str | None,
    typer.Option("--size", help="Scale the images of a folder: HEIGHT,WIDTH, or one for both.", show_default=False),
]

"""`unbraid figure`: the figures of chapter 11."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unbraid.cli._console import JSON, show
from unbraid.cli.models._toy import TOY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure"]

figure = typer.Typer(help="Draw the figures of chapter 11 as SVG or PNG.", rich_markup_mode="rich")

_Blocks = Annotated[int, typer.Option("--blocks", "-k", help="The number of blocks, 1 to 6.")]
_Output = Annotated[Path | None, typer.Option("--output", "-o", help="The file, .svg or .png.", show_default=False)]


@figure.command(epilog="Example: unbraid figure network --blocks 4 -o network.svg")
def network(blocks: _Blocks = 4, output: _Output = None, as_json: JSON = False) -> None:
    """Figure 11.4a: a residual network with its skips (without -o to network.svg)."""
    from unbraid import draw

    _write(draw.network(blocks), output or Path("network.svg"), as_json=as_json)


@figure.command(epilog="Example: unbraid figure unravelled --blocks 4 -o unravelled.png")
def unravelled(blocks: _Blocks = 4, output: _Output = None, as_json: JSON = False) -> None:
    """Figure 11.4b: the same network as all its paths side by side (without -o to unravelled.svg)."""
    from unbraid import draw

    _write(draw.unravelled(blocks), output or Path("unravelled.svg"), as_json=as_json)


@figure.command(epilog='Example: unbraid figure order "norm act linear +" -o order.svg')
def order(
    order: Annotated[str, typer.Argument(help="Tokens linear, conv, attention, mlp, norm, act and one +.")],
    output: _Output = None,
    as_json: JSON = False,
) -> None:
    """Figure 11.5: the operations of one block in a given order (without -o to order.svg)."""
    from unbraid import draw

    _write(draw.order(order), output or Path("order.svg"), as_json=as_json)


@figure.command(epilog="Example: unbraid figure toy -o toy.svg")
def toy(output: _Output = None, as_json: JSON = False) -> None:
    """Four scalar blocks whose 16 paths add up to the output, as a table; with -o as a picture too."""
    if output is not None:
        from unbraid import draw

        paths = TOY.paths()
        draw.save(draw.paths([path.length for path in paths], [path.value for path in paths]), output)
    show(TOY.table(), TOY.to_dict(), as_json=as_json)


def _write(drawing: "Figure", output: Path, *, as_json: bool) -> None:
    from unbraid import draw

    path = draw.save(drawing, output)
    show(str(path), {"path": str(path)}, as_json=as_json)

"""The verbs under one name. Each imports torch only when it runs, so that help and errors come at once."""

from importlib.metadata import version
from typing import Annotated

import typer

from unbraid.cli._figure import figure
from unbraid.cli._lesion import lesion
from unbraid.cli._paths import paths
from unbraid.cli._prune import prune
from unbraid.cli._report import report
from unbraid.cli._sweep import sweep
from unbraid.cli._trace import trace
from unbraid.cli._train import train
from unbraid.cli._unravel import unravel

__all__ = ["app"]

app = typer.Typer(
    name="unbraid",
    help="Build residual networks, find the residual connections in any PyTorch model, and take it apart, exactly.",
    epilog="Example: unbraid report -o report/index.html",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog="Example: unbraid report --depths 10,20 -o report/index.html")(report)
app.command(epilog="Example: unbraid train runs/mlp20 --depth 20 --scale '1/sqrt(K)'")(train)
app.command(epilog="Example: unbraid sweep depths.toml -o depths.svg")(sweep)
app.command(epilog="Example: unbraid trace timm:resnet50 --json")(trace)
app.command(epilog="Example: unbraid unravel runs/mlp20 --examples 100")(unravel)
app.command(epilog="Example: unbraid paths runs/mlp20 --data mnist1d --target 3 -o paths.svg")(paths)
app.command(epilog="Example: unbraid lesion runs/mlp20 --sets pairs --metric error -o lesion.svg")(lesion)
app.command(epilog="Example: unbraid prune runs/mlp20 --keep 0.75 --heal 5 --save runs/mlp15")(prune)
app.add_typer(figure, name="figure", epilog="Example: unbraid figure unravelled --blocks 4 -o unravelled.svg")


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"unbraid {version('unbraid')}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    # `main` takes --debug out of the arguments wherever it stands; it is declared here to be in the help.
    pass

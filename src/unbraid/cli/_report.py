"""`unbraid report`: one HTML page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unbraid.cli._console import JSON, progress, show
from unbraid.cli._model import Loaded, Wish, load, parse_shape
from unbraid.cli._trace import Model, Pretrained, Shape, Weights

if TYPE_CHECKING:
    from unbraid.cli._experiment import Comparison
    from unbraid.report import Page

__all__ = ["report"]

_QUICK_DEPTHS, _QUICK_EPOCHS = "2,4", 1
_SAMPLED = 16  # random paths of each length, beside the exact spectrum of the default page


def report(
    model: Model = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page, .html.")] = Path("report/index.html"),
    depths: Annotated[str, typer.Option(help="Numbers of blocks to compare.")] = "10,20,40",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 40,
    seeds: Annotated[int, typer.Option(min=1, help="Networks of each kind and depth.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Depths 2 and 4, one epoch: to see that it works.")] = False,
    input_shape: Shape = None,
    pretrained: Pretrained = False,
    weights: Weights = None,
    as_json: JSON = False,
) -> None:
    """Take a model apart and write what was found as one self-contained page, its numbers beside it.

    Without MODEL: generate MNIST-1D, train plain and residual networks of the same layers at several depths, compare
    them and take the deepest residual one apart.
    """
    if output.suffix.lower() != ".html":  # known before the training, not after it
        raise ValueError(f'a report is written to a path that ends in .html; got "{output}".')
    if model is None:
        numbers = _numbers(_QUICK_DEPTHS if quick else depths)
        page = _default_page(_compare(numbers, _QUICK_EPOCHS if quick else epochs, seeds))
    else:
        loaded = load(model, Wish(parse_shape(input_shape), pretrained), weights)
        page = _model_page(loaded)
    from unbraid import report as reports

    path = reports.write(page, output)
    show(str(path), {"path": str(path), **reports.to_dict(page)}, as_json=as_json)


def _numbers(text: str) -> list[int]:
    numbers = [number.strip() for number in text.split(",")]
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise ValueError(f'--depths is numbers of blocks with commas between, such as 10,20,40; got "{text}".')
    return sorted({int(number) for number in numbers})


def _compare(depths: list[int], epochs: int, seeds: int) -> "Comparison":
    from unbraid.cli._experiment import KINDS, compare
    from unbraid.data import by_name
    from unbraid.train import Recipe

    with progress(len(depths) * seeds * epochs * len(KINDS)) as step:
        return compare(by_name("mnist1d"), depths, range(seeds), Recipe(epochs=epochs), step)


def _default_page(done: "Comparison") -> "Page":
    from unbraid.cli._anatomy import anatomy
    from unbraid.report import Page, sections

    trial = done.deepest
    name = f"the residual network of depth {trial.depth}"
    loaded = Loaded(name, trial.run.network.cpu(), (done.data.test.inputs,), python="model = run.network")
    found = [sections.training(done.training()), sections.depth(done.curves()), *anatomy(loaded, _SAMPLED)]
    return Page("Plain and residual networks on MNIST-1D", found, "Trained from the same weights, then taken apart.")


def _model_page(loaded: Loaded) -> "Page":
    from unbraid.cli._anatomy import anatomy
    from unbraid.report import Page

    return Page(f"{loaded.name}, taken apart", anatomy(loaded))

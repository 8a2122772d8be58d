"""`unbraid report`: one HTML page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unbraid.cli._console import JSON, progress, show
from unbraid.cli._trace import Model, Pretrained, Shape, Weights
from unbraid.cli.models._model import Loaded, Wish, load, parse_shape

if TYPE_CHECKING:
    from collections.abc import Collection

    from unbraid.cli._experiment import Comparison
    from unbraid.reports import Page, Section

__all__ = ["report"]

_QUICK_DEPTHS, _QUICK_EPOCHS = "2,4", 1
_INPUTS = 4  # random ones, where no data is named


def report(
    model: Model = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="mnist1d, digits, a file, or a folder of images; tokens (.npy) or a text for a language model. By "
            "default what it was trained on here, else random inputs."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page, .html.")] = Path("report/index.html"),
    examples: Annotated[int, typer.Option(min=2, help="Of the test part of the data, how many to run.")] = 512,
    skip: Annotated[
        str,
        typer.Option(
            help="Sections to leave out, with commas: terms, lens, spectrum, values, paths, lesions, orders, signal, "
            "examples, neighbours."
        ),
    ] = "",
    depths: Annotated[str, typer.Option(help="Without MODEL: numbers of blocks to compare.")] = "10,20,40",
    epochs: Annotated[int, typer.Option(min=1, help="Without MODEL: passes over the training part.")] = 40,
    seeds: Annotated[int, typer.Option(min=1, help="Without MODEL: networks of each kind and depth.")] = 1,
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
    from unbraid.reports import check_path, to_dict, write

    check_path(output)  # known before the training, not after it
    left_out = [name.strip() for name in skip.split(",") if name.strip()]
    if model is None:
        if data is not None:
            raise ValueError("--data goes with a MODEL; without one the networks learn MNIST-1D.")
        numbers = _numbers(_QUICK_DEPTHS if quick else depths)
        page = _default_page(_compare(numbers, _QUICK_EPOCHS if quick else epochs, seeds), examples, left_out)
    else:
        loaded = load(model, Wish(parse_shape(input_shape), pretrained, _INPUTS, data=data, labels=True), weights)
        page = _model_page(model, loaded, data, examples, left_out)
    path = write(page, output)
    show(str(path), {"path": str(path), **to_dict(page)}, as_json=as_json)


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


def _default_page(done: "Comparison", examples: int, skip: "Collection[str]") -> "Page":
    from unbraid import trace
    from unbraid.data import Examples, batches
    from unbraid.reports import NAMES, Subject, page, sections

    trial = done.deepest
    test = Examples(done.data.test.inputs[:examples], done.data.test.labels[:examples])
    form = trace(trial.run.network.cpu().eval(), test.inputs[:2])
    with progress(len(NAMES)) as step:
        return page(
            Subject.of(form, batches(test, 128), f"the residual network of depth {trial.depth}"),
            before=[sections.training(done.training()), sections.depth(done.curves())],
            python="model = run.network.eval()",
            title="Plain and residual networks on MNIST-1D",
            summary="Trained from the same weights, then taken apart.",
            skip=skip,
            step=step,
        )


def _model_page(spec: str, loaded: Loaded, data: str | None, examples: int, skip: "Collection[str]") -> "Page":
    from unbraid import trace
    from unbraid.cli._examples import examples_of
    from unbraid.reports import NAMES, Subject, page

    on = examples_of(spec, loaded, data, examples)
    form = trace(loaded.model, loaded.args, loaded.kwargs)
    before = [_training(spec, len(form.blocks))] if Path(spec).is_dir() else []
    with progress(len(NAMES)) as step:
        return page(
            Subject.of(form, on.batches, loaded.name),
            before=before,
            python=loaded.python,
            summary=on.said,
            skip=skip,
            step=step,
        )


def _training(folder: str, depth: int) -> "Section":
    """The section on how a network of `unbraid train` was trained."""
    from dataclasses import asdict

    from unbraid import draw
    from unbraid.cli._experiment import run_facts
    from unbraid.reports import Picture, sections
    from unbraid.train import load as load_run

    run = load_run(folder)
    counts = tuple(int(run.data_facts.get(part, 0)) for part in ("train", "test"))
    python = f"run = unbraid.train.load({folder!r})\nprint(run.table())"
    facts = sections.Training(
        run.data, (counts[0], counts[1]), asdict(run.recipe), [run_facts(run, folder, depth)], python
    )
    if not run.history:
        return sections.training(facts)
    curve = Picture(draw.svg(run.plot()), "Error in % after each epoch.", "Lines of train and test error by epoch.")
    return sections.training(facts, curve)

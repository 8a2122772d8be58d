"""`unbraid lesion`: what a model is worth without its blocks."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unbraid.cli._console import JSON, show, tell
from unbraid.cli._resume import with_resume_file
from unbraid.cli._size import Size
from unbraid.cli._trace import Model, Pretrained, Shape, Weights
from unbraid.cli.models._model import Loaded, Wish, explain, load, parse_shape

if TYPE_CHECKING:
    from torch import Tensor

    from unbraid import ResidualForm

__all__ = ["lesion"]


class _Sets(StrEnum):
    SINGLE = "single"
    PAIRS = "pairs"


class _Replace(StrEnum):
    ZERO = "zero"
    MEAN = "mean"
    RESAMPLE = "resample"
    IDENTITY = "identity"


class _Measure(StrEnum):
    LOSS = "loss"
    ERROR = "error"


_SAID = {_Measure.LOSS: "loss in nats", _Measure.ERROR: "error in %"}


def lesion(
    model: Model = None,
    data: Annotated[
        str | None,
        typer.Option(help="mnist1d, digits, or a file: its test part is run. By default what it was trained on."),
    ] = None,
    sets: Annotated[_Sets, typer.Option(help="Delete each block, or each pair of blocks.")] = _Sets.SINGLE,
    replace: Annotated[_Replace, typer.Option(help="What takes the place of a branch's output.")] = _Replace.ZERO,
    metric: Annotated[_Measure, typer.Option(help="The mean cross-entropy, or the share of errors.")] = _Measure.LOSS,
    layers: Annotated[
        str | None,
        typer.Option(help="Cut a plain network at these modules: layers, or names with commas.", show_default=False),
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="How many examples to run.")] = 1000,
    batch: Annotated[int, typer.Option(min=1, help="Examples of a batch.")] = 100,
    max_batch: Annotated[
        int | None,
        typer.Option(min=1, help="Examples that run at once at most; by default as memory allows.", show_default=False),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A figure, .png or .svg.")] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            "--keep",
            help="Keep finished batches in this SQLite file, by default in the user's cache until all is done. The "
            "same command goes on from there.",
            show_default=False,
        ),
    ] = None,
    size: Size = None,
    input_shape: Shape = None,
    pretrained: Pretrained = False,
    weights: Weights = None,
    as_json: JSON = False,
) -> None:
    """Delete each block in turn and measure what is lost (Veit et al. 2016)."""
    if model is None:
        tell(f"unbraid lesion: which model?\n{explain()}")
        raise typer.Exit(2)
    if output is not None and output.suffix.lower() not in {".png", ".svg"}:  # known before the work, not after it
        raise ValueError(f'a figure is written as .png or .svg; got "{output}".')
    loaded = load(model, Wish(parse_shape(input_shape), pretrained, data=data, labels=True), weights)
    import unbraid
    from unbraid.cli._pruned import Task
    from unbraid.data import Examples, batches

    task = Task.of(model, loaded, data, size)
    if task.data is None:
        raise ValueError("a lesion is measured on examples with labels; give --data mnist1d, digits, or a file.")
    test = task.data.test
    chosen = Examples(test.inputs[:examples], test.labels[:examples])
    form = _form(loaded, layers)
    measure = _error if metric is _Measure.ERROR else _loss

    def work(file: Path | None) -> unbraid.LesionStudy:
        parts = batches(chosen, batch)
        return unbraid.lesion(
            form, parts, measure, sets=sets.value, replace=replace.value, max_batch=max_batch, resume=file
        )

    asked = (model, weights, task.data.name, size, sets, replace, metric, layers, examples, batch)
    study = with_resume_file("lesion", resume, asked, work)
    if output is not None:
        from unbraid import draw

        draw.save(study.plot(_SAID[metric]), output)
        tell(f"unbraid lesion: the figure is {output}")
    facts = {"model": loaded.name, "data": task.data.name, "metric": _SAID[metric], **study.to_dict()}
    show(study.table(), {**facts, "figure": None if output is None else str(output)}, as_json=as_json)


def _form(loaded: Loaded, layers: str | None) -> "ResidualForm":
    import unbraid

    if layers is None:
        return unbraid.trace(loaded.model, loaded.args, loaded.kwargs)
    return unbraid.chain(loaded.model, loaded.args, loaded.kwargs, layers=layers.split(","))


def _loss(output: Any, labels: "Tensor") -> "Tensor":
    from torch.nn.functional import cross_entropy

    return cross_entropy(output, labels)


def _error(output: Any, labels: "Tensor") -> "Tensor":
    return 100 * (output.argmax(1) != labels).double().mean()

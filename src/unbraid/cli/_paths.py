"""`unbraid paths`: the gradient of an output by the length of its paths."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from unbraid.cli._console import JSON, show, tell
from unbraid.cli._size import Size
from unbraid.cli._trace import Model, Pretrained, Shape, Weights
from unbraid.cli.models._model import Loaded, Wish, explain, load, parse_shape

if TYPE_CHECKING:
    from torch import Tensor

    from unbraid.reports.sections._paths import PathFacts
    from unbraid.results import Target

__all__ = ["paths"]


def paths(
    model: Model = None,
    data: Annotated[
        str | None, typer.Option(help="mnist1d, digits, or a file: examples to run, of its test part.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="The class to explain, POSITION,CLASS, or loss: the cross-entropy with the labels of --data. "
            "By default each example's largest output."
        ),
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="How many examples to run.")] = 8,
    per_length: Annotated[
        int, typer.Option(min=0, help="Random paths of each length to compare with (Veit et al. 2016); 0 for none.")
    ] = 16,
    heads: Annotated[bool, typer.Option("--heads", help="Split attention branches by head.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A figure, .png or .svg.")] = None,
    size: Size = None,
    input_shape: Shape = None,
    pretrained: Pretrained = False,
    weights: Weights = None,
    as_json: JSON = False,
) -> None:
    """Split the gradient at the input over the lengths of all paths, exactly (Equation 11.6)."""
    if model is None:
        tell(f"unbraid paths: which model?\n{explain()}")
        raise typer.Exit(2)
    if output is not None and output.suffix.lower() not in {".png", ".svg"}:  # known before the work, not after it
        raise ValueError(f'a figure is written as .png or .svg; got "{output}".')
    if target == "loss" and data is None:
        raise ValueError("--target loss needs labels; give --data mnist1d, digits, or a file.")
    aim, said = _target(None if target == "loss" else target)
    loaded = load(model, Wish(parse_shape(input_shape), pretrained, examples, data=data), weights)
    if data is not None:
        loaded, labels = _on(loaded, data, size, examples)
        if target == "loss":
            aim, said = _loss(labels), "the loss"
    import unbraid
    from unbraid.cli._spectrum import path_facts

    form = unbraid.trace(loaded.model, loaded.args, loaded.kwargs).split("heads" if heads else None)
    facts = path_facts(loaded, form, aim, said, per_length)
    if output is not None:
        from unbraid import draw

        draw.save(draw.spectrum(facts.counts, facts.share, facts.effective, facts.sampled), output)
        tell(f"unbraid paths: the figure is {output}")
    show(_table(facts), _plain(facts, output), as_json=as_json)


def _target(text: str | None) -> "tuple[Target, str]":
    """A class, a pair, or each example's largest output; and how to call it."""
    if text is None:
        from unbraid.cli._spectrum import LARGEST
        from unbraid.results import largest

        return largest, LARGEST
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        return numbers[0], f"class {numbers[0]}"
    if len(numbers) == 2:
        return (numbers[0], numbers[1]), f"class {numbers[1]} at position {numbers[0]}"
    raise ValueError(f'--target is a class, such as 3, or a position and a class, such as 5,3; got "{text}".')


def _loss(labels: "Tensor") -> "Target":
    """The cross-entropy of each example."""
    from unbraid.results import classification_loss, loss_target

    return loss_target(classification_loss, labels)


def _on(loaded: Loaded, data: str, size: str | None, examples: int) -> "tuple[Loaded, Tensor]":
    """The model on examples of a data set, flat where the model takes flat ones, and their labels."""
    from unbraid.cli._sizes import check_takes, examples_of

    if len(loaded.args) != 1 or loaded.kwargs:
        raise ValueError(f"{loaded.name} takes more than one input; --data gives one.")
    like = loaded.args[0]
    dataset = examples_of(data, size)
    dataset = dataset.flat() if like.ndim == 2 else dataset
    check_takes(loaded, dataset, traced=False)
    chosen = dataset.test
    return replace(loaded, args=(chosen.inputs[:examples].to(like.dtype),)), chosen.labels[:examples]


def _table(facts: "PathFacts") -> Table:
    from unbraid.reports.sections._paths import overstated

    low, high = facts.effective
    caption = (
        f"95 % of the norm in lengths {low} to {high}; the sum over lengths equals autograd's gradient to "
        f"{facts.error:.1e}; {facts.examples} examples, {facts.target}"
    )
    table = Table(box=box.SIMPLE_HEAD, caption=caption)
    table.caption_justify = "left"
    names = ["length", "paths", "norm", "share"]
    if facts.sampled is not None:
        names += ["norm of one path", "count × it / norm"]
    for name in names:
        table.add_column(name, justify="right")
    for length, (count, norm, share) in enumerate(zip(facts.counts, facts.norms, facts.share, strict=True)):
        cells = [str(length), f"{count:,}", f"{norm:.4g}", f"{100 * share:.2f} %"]
        if facts.sampled is not None:
            one = facts.sampled[length]
            cells += [f"{one:.4g}", f"{overstated(count, one, norm):.4g}"]
        table.add_row(*cells)
    return table


def _plain(facts: "PathFacts", output: Path | None) -> dict[str, Any]:
    plain = asdict(facts)
    plain["model"] = plain.pop("network")
    plain.pop("python")
    return {**plain, "figure": None if output is None else str(output)}

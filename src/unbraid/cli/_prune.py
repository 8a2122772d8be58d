"""`unbraid prune`: a smaller model."""

from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from unbraid.cli._console import JSON, progress, show, tell
from unbraid.cli._filling import filling, require_new
from unbraid.cli._size import Size
from unbraid.cli._trace import Model, Pretrained, Shape, Weights
from unbraid.cli.models._model import Wish, explain, load, parse_shape

if TYPE_CHECKING:
    from unbraid import Pruning, Ranking, ResidualForm
    from unbraid.cli._pruned import Task
    from unbraid.discover import BranchLike

__all__ = ["prune"]


class _By(StrEnum):
    INFLUENCE = "influence"
    LESION = "lesion"
    GRADIENT = "gradient"


class _Each(StrEnum):
    LAYER = "layer"
    BLOCK = "block"


def prune(
    model: Model = None,
    drop: Annotated[
        str | None,
        typer.Option(
            help="The blocks to remove, by number or name: 3,-1,layer1.0; or branches as BLOCK:BRANCH, such as 3:1."
        ),
    ] = None,
    keep: Annotated[float | None, typer.Option(help="The share of layers to keep; the least important go.")] = None,
    by: Annotated[_By, typer.Option(help="What makes a layer important, for --keep.")] = _By.INFLUENCE,
    each: Annotated[
        _Each, typer.Option(help="What --keep counts: layers, whose blocks go together, or single blocks.")
    ] = _Each.LAYER,
    data: Annotated[
        str | None,
        typer.Option(help="mnist1d, digits, or a file: to rank, heal and test on. By default what it was trained on."),
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="How many examples, of the training part, to rank on.")] = 256,
    save: Annotated[Path | None, typer.Option(help="A new folder for the smaller model.", show_default=False)] = None,
    heal: Annotated[int, typer.Option(min=0, help="Epochs of training after the removal.")] = 0,
    lr: Annotated[
        float | None, typer.Option(help="The learning rate of healing; by default a fifth of that of the training.")
    ] = None,
    size: Size = None,
    input_shape: Shape = None,
    pretrained: Pretrained = False,
    weights: Weights = None,
    as_json: JSON = False,
) -> None:
    """Remove blocks of a model and hand back a smaller one, checked against the model's form without them.

    Killed while it heals, the same command with --save goes on after the last epoch.
    """
    if model is None:
        tell(f"unbraid prune: which model?\n{explain()}")
        raise typer.Exit(2)
    if (drop is None) == (keep is None):
        raise ValueError("say what goes: either --drop 3,7 or --keep 0.75.")
    chosen = None if drop is None else _removals(drop)
    if keep is not None and not 0 <= keep <= 1:
        raise ValueError(f"--keep is a share from 0 to 1; got {keep:g}.")
    require_new(save)  # known before the work, not after it
    loaded = load(model, Wish(parse_shape(input_shape), pretrained, data=data, labels=True), weights)
    from unbraid.cli._pruned import Task

    task = Task.of(model, loaded, data, size)
    if heal and task.data is None:
        raise ValueError("--heal trains on data that unbraid knows; give --data mnist1d, digits, or a file.")
    if keep is not None and by is not _By.INFLUENCE and task.data is None:
        raise ValueError(f"--by {by.value} needs labels; give --data mnist1d, digits, or a file.")
    done = _prune(task, chosen, drop, keep, by, each, examples)
    smaller = done.pruning.model
    accuracy = {"before": task.accuracy(loaded.model), "after": task.accuracy(smaller)}
    with filling(save, {} if save is None else task.asked(done.pruning, heal, lr)) as work:
        healed = None
        if heal:
            with progress(heal) as step:
                healed = task.heal(done.pruning, heal, lr, None if work is None else work / "healing", step)
            accuracy["healed"] = task.accuracy(smaller)
        kept = None if save is None else task.keep(done.form, done.pruning, save, healed=healed)
    facts = {"model": loaded.name, **done.facts, "accuracy": None if task.data is None else accuracy, "saved": kept}
    show(Group(*done.tables, *_lines(facts)), facts, as_json=as_json)


@dataclass(frozen=True, eq=False)
class Done:
    """What the removal came to.

    Attributes:
        form: of the whole model.
        ranking: what the choice was made by, if it was made here.
        pruning: the smaller model.
    """

    form: "ResidualForm"
    ranking: "Ranking | None"
    pruning: "Pruning"

    @property
    def tables(self) -> list[Any]:
        """What there is to show."""
        return [*([] if self.ranking is None else [self.ranking.table()]), self.pruning.table()]

    @property
    def facts(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**self.pruning.to_dict(), "ranking": None if self.ranking is None else self.ranking.to_dict()}


def _prune(
    task: "Task",
    chosen: "list[BranchLike] | None",
    drop: str | None,
    keep: float | None,
    by: _By,
    each: _Each,
    examples: int,
) -> Done:
    import unbraid
    from unbraid.pruning import layers, pruning

    loaded = task.loaded
    form = unbraid.trace(loaded.model, loaded.args, loaded.kwargs)
    ranking = None
    if chosen is None:
        assert keep is not None
        groups = layers(loaded.model, form) if each is _Each.LAYER else None
        ranking = unbraid.rank(form, task.batches(examples), by=by.value, metric=task.metric, groups=groups)
        gone = len(ranking.groups) - _rounded_up(keep * len(ranking.groups))
        chosen = list(ranking.least(gone))
    try:
        return Done(form, ranking, pruning(loaded.model, form, chosen))
    except IndexError as error:
        said = str(error).removeprefix("prune: ")
        words = chain.from_iterable(part if isinstance(part, tuple) else (part,) for part in chosen)
        names = any(isinstance(word, str) for word in words)
        raise ValueError(f"{_how(drop)} {said[0].upper()}{said[1:]}" if names else f"--drop: {said}") from error


def _removals(text: str) -> "list[BranchLike]":
    removals: list[BranchLike] = []
    for item in text.split(","):
        block, colon, branch = (part.strip() for part in item.partition(":"))
        if not block or (colon and not branch):
            raise ValueError(_how(text))
        removals.append((_word(block), _word(branch)) if colon else _word(block))
    return removals


def _how(text: str | None) -> str:
    return f'--drop is blocks with commas between, such as 3,7, or 3:1 for a branch; got "{text}".'


def _word(text: str) -> int | str:
    """A number where it is one, else a name."""
    return int(text) if text.removeprefix("-").isdecimal() else text


def _rounded_up(count: float) -> int:
    """0.7 of 10 layers are 7, although 0.7 · 10 is a little more in floating point."""
    return int(-(-round(count, 9) // 1))


def _lines(facts: dict[str, Any]) -> list[Text]:
    lines = []
    if facts["accuracy"] is not None:
        said = [f"{name} {value:.1f} %" for name, value in facts["accuracy"].items() if value is not None]
        lines.append(f"accuracy on the test part: {', '.join(said)}")
    if facts["saved"] is not None:
        lines.append(facts["saved"]["said"])
    return [Text(f"  {line}") for line in lines]

"""What was trained, and how it ended."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unbraid.reports._content import Code, Column, Part, Picture, Section, Table, finite

__all__ = ["TrainedNetwork", "Training", "training"]


@dataclass(frozen=True)
class TrainedNetwork:
    """One run.

    Attributes:
        name: such as "residual".
        depth: its blocks.
        parameters: how many numbers it learned.
        seed: of its first weights and of the order of examples.
        epochs: passes over the training part that were completed.
        test_error: in percent; nan where it diverged.
        seconds: wall time.
        diverged: the step at which its loss ceased to be finite; None where it never did.
    """

    name: str
    depth: int
    parameters: int
    seed: int
    epochs: int
    test_error: float
    seconds: float
    diverged: int | None = None


@dataclass(frozen=True)
class Training:
    """All runs of a comparison.

    Attributes:
        data: the name of the data set.
        examples: how many were learned from, and how many tested on.
        recipe: the hyperparameters by name.
        networks: the runs.
        python: code that trains the same.
    """

    data: str
    examples: tuple[int, int]
    recipe: Mapping[str, str | int | float]
    networks: Sequence[TrainedNetwork]
    python: str = ""


def training(done: Training, curve: Picture | None = None) -> Section:
    """The section on what was trained: recipe and runs, with a picture of how it went where one is given.

    Raises:
        ValueError: there are no runs.
    """
    if not done.networks:
        raise ValueError("training: a report on training needs at least one run.")
    diverged = sum(run.diverged is not None for run in done.networks)
    seconds = math.fsum(run.seconds for run in done.networks)
    count = "1 network" if len(done.networks) == 1 else f"{len(done.networks)} networks"
    finding = (
        f"{count} trained on {done.examples[0]:,} examples of {done.data} in {seconds:.0f} s, "
        f"tested on {done.examples[1]:,}; {diverged or 'none'} diverged."
    )
    parts: list[Part] = [] if curve is None else [curve]
    parts += [_runs(done.networks), _recipe(done.recipe)]
    if done.python:
        parts.append(Code(done.python))
    return Section("What was trained", finding, parts)


def _runs(runs: Sequence[TrainedNetwork]) -> Table:
    columns = (
        Column("Network"),
        Column("Depth", "blocks"),
        Column("Seed"),
        Column("Parameters", format=","),
        Column("Epochs"),
        Column("Test error", "%", ".1f"),
        Column("Time", "s", ".1f"),
        Column("Diverged", "at step", ","),
    )
    rows = [
        (run.name, run.depth, run.seed, run.parameters, run.epochs, finite(run.test_error), run.seconds, run.diverged)
        for run in runs
    ]
    return Table(columns, rows, "One row a run. A dash stands for a run that diverged, or for one that did not.")


def _recipe(recipe: Mapping[str, str | int | float]) -> Table:
    rows = [(name.replace("_", " "), value) for name, value in recipe.items()]
    return Table((Column("Setting"), Column("Value", format="")), rows, "The same for every run.")

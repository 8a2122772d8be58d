"""`unbraid sweep`: train every combination of some settings, and keep what is finished.

A store belongs to one job and one data set, told by its checksum. Runs are found by all their settings, so a grid may
grow; stacks are formed from the whole grid, so a resumed sweep computes what an unbroken one would.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from itertools import chain, compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unbraid.cli._console import JSON, progress, show, tell
from unbraid.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from unbraid._resume_file import ResumeFile
    from unbraid.cli._grid import Grid, Setting
    from unbraid.data import Dataset
    from unbraid.train import Run

__all__ = ["sweep"]


def sweep(
    file: Annotated[Path, typer.Argument(help="TOML: each key has a value or a list of values.")],
    store: Annotated[
        Path | None, typer.Option(help="Where finished runs are kept; by default FILE.sqlite.", show_default=False)
    ] = None,
    together: Annotated[int, typer.Option(min=1, help="Networks trained at once at most; a kill loses as many.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A figure, .png or .svg.")] = None,
    as_json: JSON = False,
) -> None:
    """Train every combination of the settings in a TOML file, many networks at once; killed, it goes on.

    Such as: kind = ["plain", "residual"], depth = [10, 20, 40], lr = 0.05 and seeds = 3, each in a line of its own.
    Keys are the options of train, and activation, stochastic_depth, init, momentum, weight_decay and halvings.
    In an array of tables named grid each is a grid of its own, which takes from above what it does not say.
    """
    if output is not None and output.suffix.lower() not in {".png", ".svg"}:  # known before the work, not after it
        raise ValueError(f'a figure is written as .png or .svg; got "{output}".')
    from unbraid.cli._grid import read_grid
    from unbraid.cli._outcome import Outcome, Row
    from unbraid.data import by_name

    grid = read_grid(file)
    examples = by_name(grid.data).flat()
    _try(grid, examples)
    path = store or file.with_suffix(".sqlite")
    with _opened(path, examples) as kept:
        try:
            _train(grid, examples, kept, together, device)
        except KeyboardInterrupt:
            if kept is None:
                raise
            done = sum(kept.result(_asked(*run)) is not None for run in grid.runs)
            tell(f"{done} of {len(grid.runs)} runs are finished and kept in {path}; the same command goes on.")
            raise
        if kept is None:
            return
        seeds = {setting: grid.seeds(setting) for setting in grid.settings}
        result_of = {run: _kept(kept, run) for run in grid.runs}
    rows = []
    for setting, of_setting in seeds.items():
        results = tuple(result_of[setting, seed] for seed in of_setting)
        rows.append(Row(setting, of_setting, results))
    outcome = Outcome(grid, tuple(rows))
    if output is not None:
        from unbraid import draw

        draw.save(outcome.plot(), output)
    show(outcome.table(), outcome.to_dict(), as_json=as_json)


def _try(grid: "Grid", examples: "Dataset") -> None:
    """Build one network of each kind, so that what cannot be built is known before an hour of training."""
    for setting in {(setting.stack, setting.scale): setting for setting in grid.settings}.values():
        setting.network(examples, 0)


@contextmanager
def _opened(path: Path, examples: "Dataset") -> "Iterator[ResumeFile | None]":
    """The store, which rank 0 alone reads and writes; None on other ranks."""
    from unbraid.ranks import from_first
    from unbraid.train import Store

    opened: list[Store] = []
    from_first(lambda: opened.append(Store(path, job="sweep", data=examples)))
    with opened[0] if opened else nullcontext() as store:
        yield store


def _train(grid: "Grid", examples: "Dataset", store: "ResumeFile | None", together: int, device: str) -> None:
    """Train what is not finished, stack by stack; the runs of a stack finish, and are kept, together.

    Stacks are made of all runs, not of those left, so that a sweep that goes on computes what an unbroken one would.
    Several ranks train a stack each; where fewer stacks are left than ranks, they share the networks of one.
    """
    from unbraid.ranks import Row, Share, alone, from_first, in_order, world

    stacks = grid.stacks(together)
    runs = list(chain.from_iterable(stacks))
    missing = from_first(lambda: [_missing(store, run) for run in runs])
    left = set(compress(runs, missing))
    stacks = [mine for stack in stacks if (mine := list(filter(left.__contains__, stack)))]
    one = world().size == 1
    with progress(sum(setting.epochs for setting, _ in chain.from_iterable(stacks))) as step:

        def work(stack: "Sequence[tuple[Setting, int]]", share: Share) -> Row:
            mine = share.among(range(len(stack)))
            if not mine:
                return {}
            with alone():
                runs = _side_by_side([stack[n] for n in mine], examples, device, step if one else lambda said: None)
            return {str(n): _as_bytes(_result(run)) for n, run in zip(mine, runs, strict=True)}

        for stack, row in zip(stacks, in_order(stacks, work), strict=True):
            finished = [(_asked(*run), _from_bytes(row[str(n)])) for n, run in enumerate(stack)]
            from_first(partial(_keep, store, finished))
            for _ in range(0 if one else sum(setting.epochs for setting, _ in stack)):
                step(f"{stack[0][0].kind}, {stack[0][0].depth} blocks")


def _keep(store: "ResumeFile | None", finished: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    if store is not None:
        store.add(finished)


def _kept(store: "ResumeFile", run: "tuple[Setting, int]") -> dict[str, Any]:
    """What is kept of a run, which is finished.

    Raises:
        CheckpointError: it is gone, or is not what this command keeps.
    """
    result = store.result(_asked(*run)) or {}
    error, diverged, history = (result.get(key, "") for key in ("test_error", "diverged", "history"))
    if isinstance(error, float | int | None) and isinstance(diverged, int | None) and isinstance(history, list):
        return result
    raise CheckpointError(
        f"{store.path}: of the run {json.dumps(_asked(*run))[:80]} there is kept {json.dumps(result)[:80]}, which is "
        "no result of this command: something else has changed the file. Choose another one."
    )


def _missing(store: "ResumeFile | None", run: "tuple[Setting, int]") -> bool:
    return store is None or store.result(_asked(*run)) is None


def _as_bytes(result: dict[str, Any]) -> "Tensor":
    """What came of a run, as ranks tell one another: JSON as a row of bytes."""
    import torch

    return torch.frombuffer(bytearray(json.dumps(result).encode()), dtype=torch.uint8)


def _from_bytes(told: "Tensor") -> dict[str, Any]:
    result: dict[str, Any] = json.loads(told.numpy().tobytes())
    return result


def _side_by_side(
    stack: Sequence[tuple["Setting", int]], examples: "Dataset", device: str, step: Callable[[str], None]
) -> "list[Run]":
    from unbraid.cli._threads import one_thread
    from unbraid.train import fit, train_many

    networks = [setting.network(examples, seed) for setting, seed in stack]
    recipes = [setting.recipe for setting, _ in stack]
    seeds = [seed for _, seed in stack]
    said = f"{stack[0][0].kind}, {stack[0][0].depth} blocks, {len(stack)} at once"
    # Products of one network are too small to share between threads; those of many are not.
    with one_thread() if len(stack) == 1 else nullcontext():
        if len(stack) == 1:
            on_epoch = lambda epoch: step(said)  # noqa: E731
            runs = [fit(networks[0], examples, recipes[0], seed=seeds[0], device=device, on_epoch=on_epoch)]
        else:
            runs = train_many(
                networks,
                examples,
                recipes,
                seeds=seeds,
                together=len(stack),
                device=device,
                on_epoch=lambda number, epoch: step(said),
            )
    for run in runs:
        for _ in range(run.recipe.epochs - len(run.history)):  # where it diverged; the time left should know
            step(said)
    return runs


def _asked(setting: "Setting", seed: int) -> dict[str, Any]:
    return {**asdict(setting), "seed": seed}


def _result(run: "Run") -> dict[str, Any]:
    """What is kept of a run. A loss just short of diverging can overflow in its mean, and JSON has no infinity."""
    history = [_finite(asdict(epoch)) for epoch in run.history]
    error = None if math.isnan(run.test_error) else run.test_error
    return {"test_error": error, "diverged": run.diverged, "history": history}


def _finite(numbers: dict[str, Any]) -> dict[str, Any]:
    return {key: value if math.isfinite(value) else None for key, value in numbers.items()}

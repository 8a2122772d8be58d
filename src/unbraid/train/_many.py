"""Train many networks of one architecture at once."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn

from unbraid._modes import outside_modes
from unbraid._progress import progress
from unbraid.data import Dataset
from unbraid.errors import CheckpointError
from unbraid.ranks import world
from unbraid.train import _checkpoint
from unbraid.train._checks_before import check_data, check_shapes, device_of
from unbraid.train._claim import claimed
from unbraid.train._recipe import STANDARD, Recipe
from unbraid.train._run import Epoch, Run
from unbraid.train._same_architecture import differing_constants
from unbraid.train._side_by_side import SideBySide, Trainee

__all__ = ["train_many"]

_SHARED = ("epochs", "batch_size", "optimizer")  # of a recipe: what steps taken together must agree in


@outside_modes
def train_many(
    networks: Sequence[nn.Module],
    data: Dataset,
    recipes: Recipe | Sequence[Recipe] = STANDARD,
    *,
    seeds: Sequence[int],
    together: int = 32,
    device: torch.device | str = "auto",
    folders: Sequence[str | Path] | None = None,
    on_epoch: Callable[[int, Epoch], None] | None = None,
) -> list[Run]:
    """Train networks of one architecture side by side, each, in place, as `fit` would train it alone.

    Weights of N networks are stacked, W [N, out, in], and a step of all is one vectorised step (torch.func.vmap):
    small products of matrices become one large batch of them. Each network meets the examples in the order of its
    own seed, and follows its own recipe. The results are those of `fit` but for rounding: sums are taken in another
    order, and as training amplifies such differences, errors after many epochs can differ by an example or two.

        networks = [nn.mlp(depth=20, generator=torch.Generator().manual_seed(seed)) for seed in range(32)]
        runs = train.train_many(networks, data.mnist1d(), seeds=range(32))

    Args:
        networks: of one architecture; weights may differ, and float constants of modules, such as branch scales.
            Networks that draw random numbers (dropout, stochastic depth) are refused, for they would draw others.
        data: what to learn from, and what to test on after each epoch.
        recipes: one for all, or one for each; they agree in epochs, batch size and optimiser.
        seeds: of the order of examples, one for each network.
        together: how many are stacked at most; more are trained in several stacks, one after the other. Memory
            grows with it.
        device: where to train; "auto" is the first CUDA device, or the CPU where there is none.
        folders: keep a checkpoint of each network here, as `fit` does; `load` reads it.
        on_epoch: called after each epoch of each network with the network's number.

    Returns:
        One run for each network, in their order. Where a network's loss or weights stop being finite, its training
        ends there, its weights stay as they were then, and its run says at which step; the others do not notice.
        `Epoch.seconds` is a network's share: the stack's time divided by its networks.

    Raises:
        ValueError: where the networks are not of one architecture or draw random numbers, where recipes disagree, or
            where numbers of networks, recipes, seeds and folders differ; or where ranks are connected.
        CheckpointError: where a folder holds a run, cannot be written, or is being written by another process.
        ShapeError: as `fit`.
    """
    if world().size > 1:
        raise ValueError(
            f"train_many: {world().size} ranks are connected, and each would train all networks. Give each rank some "
            "of them inside `with ranks.alone():` (unbraid.ranks), or use the command `unbraid sweep`, which does."
        )
    data = check_data("train_many", data)
    given = [recipes] * len(networks) if isinstance(recipes, Recipe) else list(recipes)
    _check(networks, given, seeds, folders, together)
    constants = differing_constants(networks)
    place = device_of(device)
    here = data.to(place)
    for network in networks:
        check_shapes(network.to(place), here)
    paths = [None] * len(networks) if folders is None else [Path(folder) for folder in folders]
    for path in paths:
        if path is not None and _checkpoint.exists(path):
            raise CheckpointError(f"{path}: there is a run here already; choose another folder.")
    trainees = []
    for number, about in enumerate(zip(networks, given, seeds, paths, strict=True)):
        own = {name: values[number] for name, values in constants.items()}
        trainees.append(Trainee(number, *about, own))
    bar = progress(f"epochs of {len(networks)} networks", sum(recipe.epochs for recipe in given))
    with ExitStack() as held, bar as step:
        for path in paths:
            held.enter_context(claimed(path))

        def done(number: int, epoch: Epoch) -> None:
            step()
            if on_epoch is not None:
                on_epoch(number, epoch)

        for start in range(0, len(trainees), together):
            stack = trainees[start : start + together]
            SideBySide(stack, here, done).run()
            step(sum(trainee.recipe.epochs - len(trainee.history) for trainee in stack))  # of those that diverged
    return [trainee.finished(data.name) for trainee in trainees]


def _check(
    networks: Sequence[nn.Module],
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    folders: Sequence[str | Path] | None,
    together: int,
) -> None:
    if not networks or together < 1:
        raise ValueError(f"train_many: needs 1 network or more, 1 or more together; got {len(networks)}, {together}.")
    counts = {"networks": len(networks), "recipes": len(recipes), "seeds": len(seeds)}
    counts |= {} if folders is None else {"folders": len(folders)}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise ValueError(f"train_many: each network has its own recipe, seed and folder; got {said}.")
    if len({id(network) for network in networks}) < len(networks):
        raise ValueError("train_many: a network is given twice, but each has weights of its own.")
    for name in _SHARED:
        if len(values := {getattr(recipe, name) for recipe in recipes}) > 1:
            said = " and ".join(sorted(map(repr, values)))
            raise ValueError(f"train_many: networks trained at once have one {name}; the recipes have {said}.")

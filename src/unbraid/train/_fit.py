"""Train one network."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from unbraid._modes import outside_modes
from unbraid._progress import progress
from unbraid.data import Dataset, batches
from unbraid.errors import CheckpointError
from unbraid.ranks import agreed, connected, from_first, together
from unbraid.train import _checkpoint
from unbraid.train._checks_before import check_data, check_shapes, checkpointed, device_of
from unbraid.train._claim import claimed
from unbraid.train._description import check_same, describe
from unbraid.train._draws import Draws
from unbraid.train._loop import evaluate, train_pass
from unbraid.train._rank_shares import check_shares, shared
from unbraid.train._recipe import STANDARD, Recipe
from unbraid.train._run import Epoch, Run

__all__ = ["fit"]


@outside_modes
def fit(
    network: nn.Module,
    data: Dataset,
    recipe: Recipe = STANDARD,
    *,
    seed: int = 0,
    device: torch.device | str = "auto",
    folder: str | Path | None = None,
    resume: bool = False,
    checkpointing: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Run:
    """Train the network, in place, to minimise the mean cross-entropy of its outputs [batch, classes].

    Where torch.distributed connects several ranks, all call it alike and share the work: each takes its part of every
    batch, gradients are averaged (DistributedDataParallel), and rank 0 writes. Examples come in the same batches on any
    number of ranks, so a run may go on with more or fewer; `docs/scale.md` says what agrees to rounding, and what not.

    Two calls with equal networks, data, recipe and seed give the same bits on the CPU with one number of
    threads. Torch's global generator is left as it was.

        run = train.fit(nn.mlp(depth=20), data.mnist1d(), Recipe(epochs=40, lr=0.05), folder="runs/mlp20")

    Args:
        network: any module from inputs [batch, *features] to scores [batch, classes]. It is moved to
            `device`, and left there in eval mode.
        data: what to learn from, and what to test on after each epoch.
        recipe: the hyperparameters.
        seed: of the order of examples, and of what dropout and stochastic depth draw.
        device: where to train; "auto" is the first CUDA device, or the CPU where there is none.
        folder: keep a checkpoint here, replaced after each epoch at one moment: a kill leaves the last good.
        resume: carry on from the checkpoint in `folder`, if there is one, to the same bits as if never
            stopped. The network's weights are overwritten.
        checkpointing: keep about √K of K blocks' activations for the gradient and compute the others twice: the
            memory of a step grows with √K, and the results are the same. For networks of `unbraid.nn`.
        on_epoch: called after each epoch, once its checkpoint is safe, on every rank.

    Returns:
        The run. Where a loss or the weights stop being finite, training ends there, and `Run.diverged` says
        at which step; the checkpoint stays that of the last good epoch.

    Raises:
        ValueError: where checkpointing is asked for, and the network's blocks are not known to be a sequence.
        CheckpointError: where `folder` holds a run and `resume` is off, or holds another run; where it
            cannot be written or read; or where another process is training into it.
        DataError: where `data` is no Dataset, but batches, say.
        ShapeError: where the network does not take such inputs, or gives fewer scores than there are classes.
        ValueError: where there are more ranks than examples in a batch, or ranks are given different networks.
        RankError: where another rank failed.
    """
    data = check_data("fit", data)
    path = None if folder is None else Path(folder)
    place = device_of(device)
    draws = Draws(seed, place)
    network.to(place)
    here = data.to(place)
    check_shapes(network, here)
    check_shares(data, recipe)
    agreed(lambda: (repr(recipe), seed, str(path), network.state_dict(), *_tensors(here)))
    with checkpointed(network, checkpointing):
        pass  # a network that cannot is refused before anything is written
    optimizer = recipe.optimizer_of(network)
    history: list[Epoch] = []
    diverged: int | None = None
    description = {} if path is None else describe(network, data, recipe, seed)

    def keep() -> None:
        if path is not None:
            from_first(lambda: _checkpoint.write(path, description, network, optimizer, draws.state(), history))

    with claimed(path):
        if path is not None and from_first(lambda: _checkpoint.exists(path)):
            history, diverged = together(lambda: _continue(path, description, network, optimizer, draws, resume=resume))
        else:
            # Before the first epoch, so that a folder that cannot be written is known at once, not after an hour.
            keep()

        learn = batches(here.train, recipe.batch_size, generator=draws.shuffle)
        # Without gradients, four times as many examples take about the memory of one step.
        test = batches(here.test, 4 * recipe.batch_size)
        with connected(), shared(network, here) as learner, progress("epochs", recipe.epochs) as step:
            step(len(history))
            while diverged is None and len(history) < recipe.epochs:
                start, rate = time.perf_counter(), recipe.rate(len(history))
                for group in optimizer.param_groups:
                    group["lr"] = rate
                with draws.lent(), checkpointed(network, checkpointing):
                    done = train_pass(learner, optimizer, learn)
                if done.diverged is not None:
                    diverged = len(history) * len(learn) + done.diverged
                    break
                error = evaluate(network, test)
                history.append(Epoch(len(history) + 1, rate, done.loss, done.error, error, time.perf_counter() - start))
                keep()
                step(text=f"epochs, test error {error:.1f} %")
                if on_epoch is not None:
                    on_epoch(history[-1])
        if path is not None and diverged is not None:
            from_first(lambda: _checkpoint.write_diverged(path, history, diverged))
    network.eval()
    return Run(network, data.name, recipe, seed, tuple(history), diverged, path)


def _tensors(data: Dataset) -> tuple[Tensor, ...]:
    return data.train_inputs, data.train_labels, data.test_inputs, data.test_labels


def _continue(
    folder: Path,
    description: dict[str, object],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    draws: Draws,
    *,
    resume: bool,
) -> tuple[list[Epoch], int | None]:
    kept = _checkpoint.read(folder)
    if not resume:
        raise CheckpointError(
            f"{folder}: there is a run of {len(kept.history)} epochs here already. "
            "resume=True carries it on; for a new run choose another folder."
        )
    check_same(folder, kept.description, description)
    _checkpoint.put_weights(folder, kept.weights, network)
    _checkpoint.put_slots(folder, kept.slots, network, optimizer)
    try:
        draws.restore(kept.generators)
    except (KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{folder}: the states of the random generators are unusable: {error}") from error
    return list(kept.history), kept.diverged

"""The comparison behind `unbraid report`: plain and residual networks of the same layers, at several depths."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product

import torch
from torch import nn as torch_nn

from unbraid import nn
from unbraid.cli._threads import one_thread
from unbraid.data import Dataset
from unbraid.draw import DepthCurve
from unbraid.reports import sections
from unbraid.train import Recipe, Run, fit

__all__ = ["Comparison", "compare", "run_facts"]

KINDS = ("plain", "residual")


@dataclass(frozen=True)
class Trial:
    """One network of the comparison, trained."""

    kind: str
    depth: int
    run: Run


@dataclass(frozen=True)
class Comparison:
    """All networks of the comparison.

    Attributes:
        data: what they learned.
        trials: the trained networks.
    """

    data: Dataset
    trials: Sequence[Trial]

    @property
    def deepest(self) -> Trial:
        """The deepest residual network that did not diverge: the one to take apart.

        Raises:
            ValueError: all diverged.
        """
        whole = [trial for trial in self.trials if trial.kind == "residual" and trial.run.diverged is None]
        if not whole:
            raise ValueError("every residual network diverged; try other depths or more epochs.")
        return max(whole, key=lambda trial: trial.depth)

    def training(self) -> sections.Training:
        """What the report says about the runs."""
        return sections.Training(
            data=self.data.name,
            examples=(len(self.data.train), len(self.data.test)),
            recipe=asdict(self.trials[0].run.recipe),
            networks=[_facts(trial) for trial in self.trials],
            python=(
                'network = nn.mlp(depth=20, norm=None, scale="1/sqrt(K)", generator=torch.Generator().manual_seed(0))\n'
                "run = train.fit(network, data.mnist1d(), seed=0)"
            ),
        )

    def curves(self) -> list[DepthCurve]:
        """Test error against depth, a curve for each kind."""
        return [self._curve(kind) for kind in KINDS]

    def _curve(self, kind: str) -> DepthCurve:
        depths = sorted({trial.depth for trial in self.trials})
        errors = tuple(self._errors(kind, depth) for depth in depths)
        return DepthCurve(kind, tuple(depths), errors)

    def _errors(self, kind: str, depth: int) -> tuple[float, ...]:
        """The test errors over the seeds."""
        return tuple(trial.run.test_error for trial in self.trials if (trial.kind, trial.depth) == (kind, depth))


def compare(
    data: Dataset, depths: Sequence[int], seeds: Sequence[int], recipe: Recipe, step: Callable[[str], None]
) -> Comparison:
    """Train a plain and a residual network at every depth and seed, from the same first weights.

    Args:
        data: what to learn, each input one vector.
        depths: numbers of blocks.
        seeds: of the weights and of the order of examples.
        recipe: the same for all.
        step: called after each epoch with what is going on.
    """
    with one_thread():
        trials = [
            Trial(kind, depth, _fit(kind, depth, seed, data, recipe, step))
            for depth, seed, kind in product(depths, seeds, KINDS)
        ]
    return Comparison(data, trials)


def _fit(kind: str, depth: int, seed: int, data: Dataset, recipe: Recipe, step: Callable[[str], None]) -> Run:
    network = _network(kind, depth, seed, data)
    done = 0

    def on_epoch(epoch: object) -> None:
        nonlocal done
        done += 1
        step(f"{kind}, {depth} blocks")

    run = fit(network, data, recipe, seed=seed, on_epoch=on_epoch)
    for _ in range(recipe.epochs - done):  # a run that diverged ends early; the time left should know
        step(f"{kind}, {depth} blocks: diverged")
    return run


def _network(kind: str, depth: int, seed: int, data: Dataset) -> torch_nn.Module:
    # Same first weights for both kinds, whatever the scale. A plain layer at 1/√K would shrink the signal by
    # as much at each layer, so the twin is taken at scale 1, as one would train it.
    residual = nn.mlp(
        inputs=data.features[0],
        classes=data.classes,
        depth=depth,
        norm=None,
        scale="1/sqrt(K)" if kind == "residual" else 1.0,
        generator=torch.Generator().manual_seed(seed),
    )
    return residual if kind == "residual" else residual.plain()


def _facts(trial: Trial) -> sections.TrainedNetwork:
    return run_facts(trial.run, trial.kind, trial.depth)


def run_facts(run: Run, name: str, depth: int) -> sections.TrainedNetwork:
    """One run as a report shows it."""
    return sections.TrainedNetwork(
        name=name,
        depth=depth,
        parameters=sum(parameter.numel() for parameter in run.network.parameters()),
        seed=run.seed,
        epochs=len(run.history),
        test_error=run.test_error,
        seconds=math.fsum(epoch.seconds for epoch in run.history),
        diverged=run.diverged,
    )

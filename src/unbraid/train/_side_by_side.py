"""The loop over epochs and batches for a stack of networks."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unbraid.data import Dataset, batches
from unbraid.train import _checkpoint
from unbraid.train._description import describe
from unbraid.train._draws import Draws
from unbraid.train._loop import STEPS_BETWEEN_CHECKS, STEPS_BETWEEN_CHECKS_ELSEWHERE
from unbraid.train._recipe import Recipe
from unbraid.train._run import Epoch, Run
from unbraid.train._stacked_networks import Member, Stack

__all__ = ["SideBySide", "Trainee"]


@dataclass(eq=False)
class Trainee:
    """One network on its way.

    Attributes:
        number: its place among those given.
        network: holds its weights before and after.
        recipe: how it is trained.
        seed: of its order of examples.
        folder: where its checkpoint goes.
        constants: its floats in which others of the stack differ, by place.
        history: the epochs done.
        diverged: the step at which it diverged.
        slots: its optimiser's state, while no stack holds it.
    """

    number: int
    network: nn.Module
    recipe: Recipe
    seed: int
    folder: Path | None
    constants: dict[str, float]
    history: list[Epoch] = field(default_factory=list)
    diverged: int | None = None
    slots: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def finished(self, data: str) -> Run:
        """What came of it."""
        history = tuple(self.history)
        return Run(self.network.eval(), data, self.recipe, self.seed, history, self.diverged, self.folder)


@final
class SideBySide:
    """Train some networks together; `run` does it.

    Args:
        trainees: of one architecture, on the device of the data.
        data: what they learn.
        on_epoch: called after each epoch of each network.
    """

    def __init__(
        self, trainees: list[Trainee], data: Dataset, on_epoch: Callable[[int, Epoch], None] | None = None
    ) -> None:
        self._alive = trainees
        self._data = data
        self._on_epoch = on_epoch
        self._place = data.train_inputs.device
        self._recipe = trainees[0].recipe
        self._draws = {trainee.number: Draws(trainee.seed, self._place) for trainee in trainees}
        self._descriptions = {
            trainee.number: describe(trainee.network, data, trainee.recipe, trainee.seed)
            for trainee in trainees
            if trainee.folder is not None
        }
        self._stack = self._stacked()

    def run(self) -> None:
        """Train until all epochs are done or every network has diverged."""
        self._stack.check(self._data.train_inputs[:2])
        for trainee in self._alive:
            self._keep(trainee)
        for epoch in range(self._recipe.epochs):
            self._epoch(epoch)
            if len(self._alive) < len(self._stack.members):
                if not self._alive:
                    return
                self._stack = self._stacked()
        for place in range(len(self._alive)):
            self._stack.hand_back(place)

    def _stacked(self) -> Stack:
        """Those who are left, in a stack of their own, so that nothing is computed for those who are not."""
        members = [Member(trainee.network, trainee.recipe, trainee.slots) for trainee in self._alive]
        constants: dict[str, list[float]] = {name: [] for name in self._alive[0].constants}
        for trainee in self._alive:
            for name, values in constants.items():
                values.append(trainee.constants[name])
        return Stack(members, constants)

    def _epoch(self, epoch: int) -> None:
        start = time.perf_counter()
        self._stack.set_rates(epoch)
        loss, error, ended = self._train_pass(epoch)
        test_error = self._test_errors()
        alive = [place for place in range(len(self._alive)) if place not in ended]
        seconds = (time.perf_counter() - start) / len(self._stack.members)
        trainees, self._alive = self._alive, [self._alive[place] for place in alive]
        for place, step in ended.items():
            self._end(trainees[place], step)
        for place in alive:
            rate = trainees[place].recipe.rate(epoch)
            done = Epoch(epoch + 1, rate, loss[place], error[place], test_error[place], seconds)
            trainees[place].history.append(done)
            if ended or trainees[place].folder is not None:
                trainees[place].slots = self._stack.hand_back(place).slots
                self._keep(trainees[place])
            if self._on_epoch is not None:
                self._on_epoch(trainees[place].number, done)

    def _train_pass(self, epoch: int) -> tuple[list[float], list[float], dict[int, int]]:
        """One pass: each network's mean loss in nats and error in %, and the step at which some diverged, by place."""
        self._stack.train(True)
        steps = -(-len(self._data.train_labels) // self._recipe.batch_size)
        every = STEPS_BETWEEN_CHECKS.get(self._place.type, STEPS_BETWEEN_CHECKS_ELSEWHERE)
        ended: dict[int, int] = {}
        recent: list[Tensor] = []
        total = torch.zeros(len(self._alive), device=self._place)
        wrong = torch.zeros(len(self._alive), dtype=torch.int64, device=self._place)
        for step, (inputs, labels) in enumerate(self._batches()):
            outputs = self._stack.outputs(inputs, shared=False)
            losses = cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)
            recent.append(losses.detach())
            if (step + 1) % every == 0 or step + 1 == steps:
                self._look(torch.stack(recent), epoch * steps + step + 1 - len(recent), ended)
                recent.clear()
            if len(ended) == len(self._alive):
                break
            self._stack.step(losses)
            total += losses.detach() * labels.shape[1]
            wrong += count_wrong(outputs.detach(), labels)
        # The last step may have ruined the weights after its loss was looked at.
        for place, fine in enumerate(self._stack.finite()):
            if not fine and place not in ended:
                self._stack.hand_back(place)
                ended[place] = (epoch + 1) * steps - 1
        examples = len(self._data.train_labels)
        return (total / examples).tolist(), [100 * count / examples for count in wrong.tolist()], ended

    def _look(self, losses: Float[Tensor, "steps networks"], first: int, ended: dict[int, int]) -> None:
        """Take the weights of those whose loss is no longer finite, before the step that it would lead to."""
        bad = ~losses.isfinite()
        if not bad.any():
            return
        for place in bad.any(0).nonzero().flatten().tolist():
            if place not in ended:
                self._stack.hand_back(place)
                ended[place] = first + int(bad[:, place].int().argmax())

    def _batches(self) -> Iterator[tuple[Float[Tensor, "networks batch *features"], Int64[Tensor, "networks batch"]]]:
        """The same examples in another order for each network."""
        inputs, labels = self._data.train_inputs, self._data.train_labels
        # As `data.batches` draws it, so that a seed means the same order here and there.
        orders = [
            torch.randperm(len(labels), generator=self._draws[trainee.number].shuffle, device="cpu")
            for trainee in self._alive
        ]
        for chosen in torch.split(torch.stack(orders).to(self._place), self._recipe.batch_size, dim=1):
            yield inputs[chosen], labels[chosen]

    @torch.no_grad()
    def _test_errors(self) -> list[float]:
        """The share of test examples that each network answers wrongly, in %."""
        self._stack.train(False)
        wrong = torch.zeros(len(self._stack.members), dtype=torch.int64, device=self._place)
        for inputs, labels in batches(self._data.test, 4 * self._recipe.batch_size):
            wrong += count_wrong(self._stack.outputs(inputs, shared=True), labels.expand(len(wrong), -1))
        return [100 * count / len(self._data.test_labels) for count in wrong.tolist()]

    def _end(self, trainee: Trainee, step: int) -> None:
        trainee.diverged = step
        if trainee.folder is not None:
            _checkpoint.write_diverged(trainee.folder, trainee.history, step)

    def _keep(self, trainee: Trainee) -> None:
        """Write the checkpoint of a network whose weights and slots have been handed back."""
        if trainee.folder is None:
            return
        optimizer = trainee.recipe.optimizer_of(trainee.network)
        for name, parameter in trainee.network.named_parameters():
            optimizer.state[parameter] = trainee.slots.get(name, {})
        description = self._descriptions[trainee.number]
        draws = self._draws[trainee.number].state()
        _checkpoint.write(trainee.folder, description, trainee.network, optimizer, draws, trainee.history)


def count_wrong(
    outputs: Float[Tensor, "networks batch classes"], labels: Int64[Tensor, "networks batch"]
) -> Int64[Tensor, " networks"]:
    """As `_loop.count_wrong`, for each network."""
    return ((outputs.argmax(2) != labels) | ~outputs.isfinite().all(2)).sum(1)

"""Stages of convolutional blocks: each after the first has half the positions and twice the channels."""

from dataclasses import asdict, dataclass
from typing import final

import torch

from unbraid.nn._block import ResidualBlock
from unbraid.nn._choice import positive
from unbraid.nn._network import ResidualNetwork
from unbraid.nn._order import Order
from unbraid.nn._recipe import Recipe, finished

__all__ = ["Stages"]


@final
@dataclass(frozen=True)
class Stages:
    """The constructor's name and the arguments of `conv1d` and `conv2d`; together the network's config."""

    constructor: str
    inputs: int
    classes: int
    layers: int
    width: int
    stages: int
    order: Order
    activation: str
    norm: str | None
    shortcut: str
    scale: float | str
    stochastic_depth: float
    init: str

    def __post_init__(self) -> None:
        positive(inputs=self.inputs, classes=self.classes, width=self.width, stages=self.stages)

    def network(self, *, dims: int, generator: torch.Generator | None) -> ResidualNetwork:
        """Make the network for this number of position axes."""
        recipe = Recipe(
            constructor=self.constructor,
            dims=dims,
            blocks=self.stages * self._blocks_per_stage(),
            order=self.order,
            activation=self.activation,
            norm=self.norm,
            shortcut=self.shortcut,
            scale=self.scale,
            stochastic_depth=self.stochastic_depth,
        )
        with torch.device("meta"):
            network = ResidualNetwork(
                recipe.stem(self.inputs, self.width),
                self._blocks(recipe),
                recipe.head(self.width * 2 ** (self.stages - 1), self.classes),
                config={**asdict(self), "order": str(self.order)},
            )
        return finished(network, scale=self.scale, init=self.init, generator=generator)

    def _blocks(self, recipe: Recipe) -> list[ResidualBlock]:
        blocks = []
        width = self.width
        for number in range(1, recipe.blocks + 1):
            stage = (number - 1) * self.stages // recipe.blocks
            wider = self.width * 2**stage
            blocks.append(recipe.block(number, width, wider, stride=wider // width))
            width = wider
        return blocks

    def _blocks_per_stage(self) -> int:
        """Return n from layers = stages·c·n + 2."""
        step = self.stages * self.order.layers
        n, left = divmod(self.layers - 2, step)
        if n >= 1 and left == 0:
            return n
        nearest = f"{n * step + 2} or {(n + 1) * step + 2}" if n >= 1 else f"{step + 2}"
        raise ValueError(
            f"{self.constructor}: layers={self.layers} does not fit {step}n + 2: a stem, a head, and "
            f"{self.stages} stages of n blocks of {self.order.layers} each\n  Nearest: {nearest}."
        )

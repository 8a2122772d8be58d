"""Stages of convolutional blocks: each after the first has half the positions and twice the channels."""

from dataclasses import asdict, dataclass
from typing import final

import torch

from unbraid.nn._checks import checked
from unbraid.nn._choice import positive
from unbraid.nn._families import Convolutional
from unbraid.nn._finish import finished
from unbraid.nn._network import ResidualNetwork
from unbraid.nn._order import Order
from unbraid.nn._recipe import Recipe
from unbraid.nn._shortcuts import Site

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
    bottleneck: int
    activation: str
    norm: str | None
    shortcut: str
    scale: float | str
    stochastic_depth: float
    bias: bool | None
    init: str

    def __post_init__(self) -> None:
        positive(inputs=self.inputs, classes=self.classes, width=self.width, stages=self.stages)
        positive(bottleneck=self.bottleneck)
        if self.bottleneck > 1 and self.order.layers < 3:
            raise ValueError(
                f"{self.constructor}: a bottleneck is 1x1, 3x3 and 1x1, so its order has 3 convolutions or more; "
                f'"{self.order}" has {self.order.layers}\n  Use order=Order("norm act conv +").repeat(3).'
            )

    def network(self, *, dims: int, generator: torch.Generator | None) -> ResidualNetwork:
        """Make the network for this number of position axes."""
        recipe = checked(
            Recipe(
                constructor=self.constructor,
                family=Convolutional(dims, self.bottleneck),
                blocks=self.stages * self._blocks_per_stage(),
                order=self.order,
                activation=self.activation,
                norm=self.norm,
                shortcut=self.shortcut,
                scale=self.scale,
                stochastic_depth=self.stochastic_depth,
                bias=self.bias,
                init=self.init,
            )
        )
        with torch.device("meta"):
            network = ResidualNetwork(
                recipe.stem(self.inputs, self.width),
                recipe.chain(self._sites(recipe)),
                recipe.head(self._channels(self.stages - 1), self.classes),
                config={**asdict(self), "order": str(self.order)},
            )
        return finished(network, recipe, generator=generator)

    def _channels(self, stage: int) -> int:
        """What leaves the blocks of a stage, from 0."""
        return self.width * self.bottleneck * 2**stage

    def _sites(self, recipe: Recipe) -> list[Site]:
        stages = [number * self.stages // recipe.blocks for number in range(recipe.blocks)]
        sizes = [self.width, *map(self._channels, stages)]
        strides = [1 + (stage > before) for before, stage in zip([0, *stages], stages, strict=False)]
        return [recipe.site(*size) for size in zip(sizes, sizes[1:], strides, strict=False)]

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

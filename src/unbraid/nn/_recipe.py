"""What the constructors share: the modules that an order of operations stands for."""

from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from unbraid.nn._block import ResidualBlock
from unbraid.nn._choice import choose
from unbraid.nn._init import initialise_, zero_last_
from unbraid.nn._layers import ACTIVATIONS, NORMS, make_activation, make_norm, make_weight, shifts
from unbraid.nn._network import ResidualNetwork
from unbraid.nn._order import WEIGHT_TOKENS, Order
from unbraid.nn._scales import StochasticDepth, branch_scale
from unbraid.nn._shortcuts import Projection, ZeroPad

__all__ = ["Recipe", "finished"]

SHORTCUTS = {"pad": ZeroPad, "projection": Projection}


@final
@dataclass(frozen=True)
class Recipe:
    """How to make a stem, blocks and a head of one order.

    Attributes:
        constructor: its name, for messages.
        dims: number of position axes: 0 for feature vectors, 1 for sequences, 2 for images.
        blocks: K, the number of blocks.
        order: of the operations in a block.
        activation: what `act` stands for.
        norm: what `norm` stands for; None leaves the token out.
        shortcut: "pad" or "projection", where the size changes.
        scale: of the branches, see `branch_scale`.
        stochastic_depth: probability of dropping the last block's branch.
    """

    constructor: str
    dims: int
    blocks: int
    order: Order
    activation: str
    norm: str | None
    shortcut: str
    scale: float | str
    stochastic_depth: float

    def __post_init__(self) -> None:
        # Checked here, for an order need not use them all.
        choose("activation", self.activation, ACTIVATIONS)
        choose("shortcut", self.shortcut, SHORTCUTS)
        if self.norm is not None:
            choose("norm", self.norm, NORMS)
        StochasticDepth(self.stochastic_depth)  # refuses what is no probability
        self._check_tokens()
        self._check_start()

    def _check_tokens(self) -> None:
        refused = next(
            (t for t in (*self.order.before, *self.order.after) if t in WEIGHT_TOKENS and t != self.weight),
            None,
        )
        if refused:
            remedy = " ".join(self.weight if t in WEIGHT_TOKENS else t for t in str(self.order).split())
            raise ValueError(
                f'{self.constructor}: cannot build the token "{refused}" of order "{self.order}"\n'
                f'  It takes {self.weight}, norm, act and +. Write order="{remedy}".'
            )

    def _check_start(self) -> None:
        # ReLU's derivative at 0 is 0: a branch that ends in it and starts at 0 gets no gradient, ever.
        if self.scale == "zero" and self.activation == "relu" and self.order.before[-1] == "act":
            raise ValueError(
                f'{self.constructor}: with scale="zero" the order "{self.order}" never trains: each branch '
                'starts at 0, where the derivative of relu is 0\n  Use scale="learned" or another activation.'
            )

    @property
    def weight(self) -> str:
        """The token of a layer with weights."""
        return "linear" if self.dims == 0 else "conv"

    @property
    def lead(self) -> tuple[str, ...]:
        """What a branch does before its first layer with weights."""
        return self.order.before[: self.order.before.index(self.weight)]

    @property
    def used_norm(self) -> str | None:
        """The norm, where the order has one."""
        return self.norm if "norm" in str(self.order).split() else None

    def stem(self, inputs: int, width: int) -> nn.Module:
        """The first layer, then those of norm and activation that the first block does not begin with."""
        rest = {(): ("norm", "act"), ("act",): ("norm",)}.get(self.lead, ())
        tokens = (self.weight, *(token for token in rest if token in str(self.order).split()))
        return _bare(self._sequence(tokens, inputs, width))

    def block(self, number: int, inputs: int, outputs: int, stride: int = 1) -> ResidualBlock:
        """Block `number` of K, from 1."""
        return ResidualBlock(
            self._sequence(self.order.before, inputs, outputs, stride),
            skip=self._skip(inputs, outputs, stride),
            after=_bare(self._sequence(self.order.after, outputs, outputs)) if self.order.after else None,
            scale=branch_scale(self.scale, stochastic_depth=self.stochastic_depth, block=number, blocks=self.blocks),
        )

    def head(self, width: int, classes: int) -> nn.Module:
        """A linear layer on the mean over positions, after the norm and act of full pre-activation."""
        lead = self.lead if self.lead[:1] == ("norm",) else ()
        pools = {
            0: [],
            1: [nn.AdaptiveAvgPool1d(1), nn.Flatten()],
            2: [nn.AdaptiveAvgPool2d(1), nn.Flatten()],
        }
        return _bare(nn.Sequential(*self._sequence(lead, width, width), *pools[self.dims], nn.Linear(width, classes)))

    def _skip(self, inputs: int, outputs: int, stride: int) -> nn.Module | None:
        if inputs == outputs and stride == 1:
            return None
        if self.shortcut == "projection":
            # In full pre-activation nothing normalises the trunk, the projection included (He et al. 2016).
            norm = None if self.lead[:1] == ("norm",) else self.used_norm
            return Projection(inputs, outputs, stride=stride, dims=self.dims, norm=norm)
        return ZeroPad(inputs, outputs, stride=stride, dims=self.dims)

    def _sequence(self, tokens: tuple[str, ...], inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
        """The modules of the tokens; the first layer with weights changes the size."""
        modules: list[nn.Module] = []
        width = inputs
        for token in tokens:
            if token == "act":
                modules.append(make_activation(self.activation))
            elif token == "norm":
                modules += [make_norm(self.norm, width, self.dims)] if self.norm is not None else []
            else:
                bias = not shifts(self.used_norm)
                modules.append(make_weight(width, outputs, dims=self.dims, stride=stride, bias=bias))
                width, stride = outputs, 1
        return nn.Sequential(*modules)


def finished(
    network: ResidualNetwork, *, scale: float | str, init: str, generator: torch.Generator | None
) -> ResidualNetwork:
    """Give a network made on the meta device its memory and its first weights.

    On the meta device torch's own initialisation draws nothing, so the generator given is the only one used.
    """
    network.to_empty(device=torch.get_default_device())
    initialise_(network, init=init, generator=generator)
    if scale == "zero":
        for block in network.blocks:
            if isinstance(block, ResidualBlock):
                zero_last_(block.branch)
    return network


def _bare(modules: nn.Sequential) -> nn.Module:
    """Return the only module of a sequence of one."""
    return modules[0] if len(modules) == 1 else modules

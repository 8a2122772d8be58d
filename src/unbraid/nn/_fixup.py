"""Fixup: training without norms by initialisation (Zhang et al. 2019)."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from unbraid.nn._block import ResidualBlock
from unbraid.nn._init import WEIGHTS, Weighted

if TYPE_CHECKING:
    from unbraid.nn._network import ResidualNetwork

__all__ = ["fixup_"]


@torch.no_grad()
def fixup_(network: "ResidualNetwork") -> "ResidualNetwork":
    """Rescale drawn weights in place by rules 1 and 2 of Zhang et al. (2019).

    The last layer of each branch and that of the head become 0; the other layers of a branch of m layers are
    multiplied by L^(−1/(2m−2)), L the number of blocks. A step of gradient descent then changes the output by an
    amount that does not grow with L.

    Args:
        network: its weights are those of a usual initialisation.

    Returns:
        The same network.

    Raises:
        ValueError: a branch or the head has no layer with weights.
    """
    branches = [block.branch for block in network.blocks if isinstance(block, ResidualBlock)]
    for branch in branches:
        *others, last = _layers("a branch", branch)
        for layer in others:
            layer.weight.mul_(len(branches) ** (-1 / (2 * len(others))))  # m − 1 others
        _zero(last)
    _zero(_layers("the head", network.head)[-1])
    return network


def _layers(name: str, part: nn.Module) -> list[Weighted]:
    layers = [layer for layer in part.modules() if isinstance(layer, WEIGHTS)]
    if not layers:
        raise ValueError(f"fixup_: {name} has no layer with weights")
    return layers


def _zero(layer: Weighted) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)

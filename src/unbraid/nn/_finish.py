"""Memory and first weights for a network that was made on the meta device."""

from functools import partial
from itertools import chain

import torch
from torch import nn

from unbraid.nn._block import ResidualBlock
from unbraid.nn._fixup import fixup_
from unbraid.nn._init import WEIGHTS, draw_, initialise_, looks_linear_, zero_last_
from unbraid.nn._network import ResidualNetwork
from unbraid.nn._recipe import Recipe

__all__ = ["finished"]


def finished(network: ResidualNetwork, recipe: Recipe, *, generator: torch.Generator | None) -> ResidualNetwork:
    """Give a network made on the meta device its memory and its first weights.

    On the meta device torch's own initialisation draws nothing, so the generator given is the only one used.

    Args:
        network: made by the recipe.
        recipe: says how the weights start.
        generator: where the draws come from; None is torch's own.
    """
    place = torch.get_default_device()
    if nn.LayerNorm(1).weight.is_meta:  # made without drawing a number, unlike most layers
        # Parameters made here have no memory, as `empty_weights` wants it: nothing is drawn for them.
        generator = None
        for module in network.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.empty_like(buffer, device=place))
    else:
        network.to_empty(device=place)
    if recipe.init == "looks_linear":
        _looks_linear(network, recipe, generator)
    else:
        initialise_(network, init=recipe.init, generator=generator)
    if recipe.scale == "zero":
        for block in network.blocks:
            if isinstance(block, ResidualBlock):
                zero_last_(block.branch)
    if recipe.scale == "fixup":
        fixup_(network)
    return network


@torch.no_grad()
def _looks_linear(network: ResidualNetwork, recipe: Recipe, generator: torch.Generator | None) -> None:
    """Pairs u, −u from the stem on, and one number for each class from the head."""
    draw_(network.stem, partial(looks_linear_, mirror="outputs"), generator)
    draw_(network.blocks, looks_linear_, generator)
    draw_(network.head, partial(looks_linear_, mirror="inputs"), generator)
    # From u and −u themselves, rather than φ(u) and φ(−u), a mirrored layer makes twice as much.
    ends = [block.skip for block in network.blocks if isinstance(block, ResidualBlock)]
    ends += [network.head] if "act" not in recipe.head_lead else []
    for module in chain.from_iterable(end.modules() for end in ends):
        if isinstance(module, WEIGHTS):
            module.weight.mul_(0.5)

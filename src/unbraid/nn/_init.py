"""Initialisation with an explicit generator."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.nn._choice import choose
from unbraid.nn._layers import ChannelRMSNorm
from unbraid.nn._scales import LearnedScale

__all__ = ["INITS", "glorot_", "he_", "initialise_", "zero_last_"]

WEIGHTS = (nn.Linear, nn.Conv1d, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, ChannelRMSNorm)

Weight = Float[Tensor, "outputs inputs *kernel"]


def he_(weight: Weight, *, distribution: str = "uniform", generator: torch.Generator | None = None) -> Weight:
    """Draw weights of variance 2 / fan_in in place (He et al. 2015): ReLU then keeps the mean square of h.

    Args:
        weight: of a linear layer or a convolution; fan_in is inputs × kernel size.
        distribution: "uniform" or "normal".
        generator: where the draws come from; None is torch's own.

    Returns:
        The same tensor.
    """
    draws = {"uniform": nn.init.kaiming_uniform_, "normal": nn.init.kaiming_normal_}
    return choose("distribution", distribution, draws)(weight, nonlinearity="relu", generator=generator)


def glorot_(weight: Weight, *, distribution: str = "uniform", generator: torch.Generator | None = None) -> Weight:
    """Draw weights of variance 2 / (fan_in + fan_out) in place (Glorot and Bengio 2010).

    Args:
        weight: of a linear layer or a convolution; fan_in is inputs × kernel size, fan_out outputs × kernel
            size.
        distribution: "uniform" or "normal".
        generator: where the draws come from; None is torch's own.

    Returns:
        The same tensor.
    """
    draws = {"uniform": nn.init.xavier_uniform_, "normal": nn.init.xavier_normal_}
    return choose("distribution", distribution, draws)(weight, generator=generator)


INITS: dict[str, Callable[..., Tensor]] = {
    "he": partial(he_, distribution="uniform"),
    "he_normal": partial(he_, distribution="normal"),
    "glorot": partial(glorot_, distribution="uniform"),
    "glorot_normal": partial(glorot_, distribution="normal"),
}


def initialise_(module: nn.Module, *, init: str = "he", generator: torch.Generator | None = None) -> nn.Module:
    """Initialise layers with weights (biases 0), norms (gain 1, shift 0) and learned scales in place.

    The layers are linear ones and convolutions. Modules of other kinds are left as they are. The draws follow
    the order of `module.modules()`.

    Args:
        module: the network or a part of it.
        init: "he", "he_normal", "glorot" or "glorot_normal"; the short names are uniform.
        generator: where the draws come from; None is torch's own.

    Returns:
        The same module.

    Raises:
        ValueError: unknown `init`.
    """
    draw = choose("init", init, INITS)
    for part in module.modules():
        if isinstance(part, WEIGHTS):
            draw(part.weight, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, (*NORMS, LearnedScale)):
            part.reset_parameters()
    return module


def zero_last_(branch: nn.Module) -> nn.Module:
    """Set the branch's last layer with weights or norm, whichever is later, to 0 in place; it then gives 0.

    He et al. (2019) and Goyal et al. (2017) for norms, Zhang et al. (2019, Fixup) for weights.

    Args:
        branch: its layers in order of execution, as in `torch.nn.Sequential`.

    Returns:
        The same module.

    Raises:
        ValueError: the branch has neither.
    """
    parts = [part for part in branch.modules() if isinstance(part, (*WEIGHTS, *NORMS))]
    if not parts:
        raise ValueError("zero_last_: the branch has no layer with weights and no norm")
    for parameter in parts[-1].parameters():
        nn.init.zeros_(parameter)
    return branch

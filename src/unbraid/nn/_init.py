"""Initialisation with an explicit generator."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.nn._attention import SequenceEmbedding
from unbraid.nn._choice import choose
from unbraid.nn._gates import Gate
from unbraid.nn._layers import ChannelRMSNorm, ScalarBias
from unbraid.nn._norm_free import WeightStandardised
from unbraid.nn._scales import LayerScale, LearnedScale

__all__ = [
    "INITS",
    "WEIGHTS",
    "Weighted",
    "draw_",
    "glorot_",
    "he_",
    "initialise_",
    "looks_linear_",
    "orthogonal_",
    "zero_last_",
]

WEIGHTS = (nn.Linear, nn.Conv1d, nn.Conv2d)
Weighted = nn.Linear | nn.Conv1d | nn.Conv2d
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, ChannelRMSNorm)
NEUTRAL = (*NORMS, LearnedScale, LayerScale, ScalarBias, Gate, WeightStandardised)  # they start without a draw

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


def orthogonal_(weight: Weight, *, gain: float = 1.0, generator: torch.Generator | None = None) -> Weight:
    """Draw a matrix with W Wᵀ = gain² I or Wᵀ W = gain² I, whichever it can have, in place (Saxe et al. 2014).

    Args:
        weight: of a linear layer or a convolution, taken as the matrix [outputs, inputs × kernel size]. As many
            outputs as inputs × kernel size make it orthogonal; of a deep linear network all singular values are
            then 1.
        gain: √2 keeps the mean square of h through ReLU.
        generator: where the draws come from; None is torch's own.

    Returns:
        The same tensor.
    """
    nn.init.orthogonal_(weight, gain=gain, generator=generator)
    return weight


@torch.no_grad()
def looks_linear_(weight: Weight, *, mirror: str = "both", generator: torch.Generator | None = None) -> Weight:
    """Draw mirrored weights in place, so that ReLU networks begin as linear maps (Balduzzi et al. 2017, section 4).

    Features come in pairs (u, −u), and φ(u) − φ(−u) = u for ReLU, GELU and SiLU. A layer in between has a block
    [[w, −w], [−w, w]] for each pair of inputs and pair of outputs, w from an orthogonal matrix, so that it maps the
    pairs φ(±u) to the pairs ±w u. The paper puts all u before all −u; side by side the pairs outlive zero padding.

    Args:
        weight: of a linear layer or a convolution.
        mirror: "outputs" for the first layer, whose inputs are no pairs: rows v, −v; "both"; or "inputs" for the
            last: columns v, −v.
        generator: where the draws come from; None is torch's own.

    Returns:
        The same tensor.

    Raises:
        ValueError: what is to be paired is odd in number, or unknown `mirror`.
    """
    signs = {"outputs": [[1.0], [-1.0]], "both": [[1.0, -1.0], [-1.0, 1.0]], "inputs": [[1.0, -1.0]]}
    block = torch.tensor(choose("mirror", mirror, signs), dtype=weight.dtype, device=weight.device)
    sizes = weight.shape[:2]
    for what, size, step in zip(("outputs", "inputs"), sizes, block.shape, strict=True):
        if size % step:
            raise ValueError(f"looks_linear_: {what} come in pairs u, −u, but there are {size}; take an even number.")
    one = weight.new_empty(sizes[0] // block.shape[0], sizes[1] // block.shape[1], *weight.shape[2:])
    orthogonal_(one, generator=generator)
    return weight.copy_(torch.kron(one, block.view(*block.shape, *(1 for _ in weight.shape[2:]))))


INITS: dict[str, Callable[..., Tensor]] = {
    "he": partial(he_, distribution="uniform"),
    "he_normal": partial(he_, distribution="normal"),
    "glorot": partial(glorot_, distribution="uniform"),
    "glorot_normal": partial(glorot_, distribution="normal"),
    "orthogonal": orthogonal_,
    "looks_linear": looks_linear_,
}


def initialise_(module: nn.Module, *, init: str = "he", generator: torch.Generator | None = None) -> nn.Module:
    """Initialise layers with weights (biases 0), norms (gain 1, shift 0), embeddings and learned scales in place.

    The layers are linear ones and convolutions, the embeddings those of `SequenceEmbedding`. Modules of other kinds
    are left as they are. The draws follow the order of `module.modules()`.

    Args:
        module: the network or a part of it.
        init: "he", "he_normal", "glorot" or "glorot_normal" (the short names are uniform), "orthogonal", or
            "looks_linear", which mirrors inputs and outputs of every layer.
        generator: where the draws come from; None is torch's own.

    Returns:
        The same module.

    Raises:
        ValueError: unknown `init`.
    """
    draw_(module, choose("init", init, INITS), generator)
    return module


def draw_(module: nn.Module, draw: Callable[..., Tensor], generator: torch.Generator | None) -> None:
    """Draw the weights of layers by `draw`, one after the other, and set the rest to what it is at the start."""
    for part in module.modules():
        if isinstance(part, WEIGHTS):
            draw(part.weight, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, SequenceEmbedding):
            part.reset_tables(generator)
        elif isinstance(part, NEUTRAL):
            part.reset_parameters()


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

"""Networks without norms: NF-ResNets (Brock et al. 2021, "Characterizing signal propagation")."""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.nn._layers import FirstConv2d, channels_last, make_activation

__all__ = ["WeightStandardised", "activation_gain", "predicted_variances"]


@final
class WeightStandardised(nn.Module):
    """layer with Ŵ = gain · (W − μ) / (σ √N) in W's place, μ and σ of each output's N weights.

    Scaled weight standardisation (Brock et al. 2021, equation 1; Qiao et al. 2019). Where the inputs of a layer
    have one mean, its outputs have mean 0, whatever that mean is; and where they have variance 1 and no
    correlation, so have the outputs. That is what the predictions of `predicted_variances` rest on.

    Args:
        layer: a linear layer or a convolution; it holds W and the bias.
        eps: added to σ².
    Shape: as of the layer.

    Examples:
        >>> WeightStandardised(nn.Linear(5, 3))(torch.randn(2, 5)).shape
        torch.Size([2, 3])
    """

    def __init__(self, layer: nn.Linear | nn.Conv1d | nn.Conv2d, eps: float = 1e-8) -> None:
        super().__init__()
        self.layer, self.eps = layer, eps
        self.gain = nn.Parameter(torch.empty(layer.weight.shape[0]))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every gain to 1."""
        nn.init.ones_(self.gain)

    @property
    def weight(self) -> Float[Tensor, "outputs inputs *kernel"]:
        """Ŵ."""
        weight = self.layer.weight.flatten(1)
        centred = weight - weight.mean(1, keepdim=True)
        size = (centred.square().mean(1, keepdim=True) + self.eps).sqrt() * weight.shape[1] ** 0.5
        return (self.gain[:, None] * centred / size).view_as(self.layer.weight)

    def forward(self, h: Float[Tensor, "batch *features"]) -> Float[Tensor, "batch *out"]:
        """Return the layer's output with Ŵ."""
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return nn.functional.linear(h, self.weight, layer.bias)
        convolve = nn.functional.conv1d if isinstance(layer, nn.Conv1d) else nn.functional.conv2d
        laid = channels_last(h) if isinstance(layer, FirstConv2d) else h
        return convolve(laid, self.weight, layer.bias, layer.stride, layer.padding)


@cache
def activation_gain(activation: str) -> float:
    """Return γ = 1 / √Var φ(z), z ~ N(0, 1): γ φ(z) has variance 1 (Brock et al. 2021, section 3).

    For ReLU it is √(2 / (1 − 1/π)).

    Args:
        activation: "relu", "leaky_relu", "elu", "gelu", "silu" or "tanh".

    Raises:
        ValueError: unknown activation.
    """
    # The trapezoid rule: the integrand vanishes at both ends, and its kink, where it has one, is a grid point. On the
    # CPU, for networks are made under `torch.device("meta")`.
    with torch.device("cpu"):
        z = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
        density = torch.exp(-z.square() / 2)
        value = make_activation(activation)(z)
        mean, square = ((density * power).sum() / density.sum() for power in (value, value.square()))
        return float((square - mean.square()).rsqrt())


def predicted_variances(changes: Iterable[bool], alpha: float) -> Iterator[float]:
    """Yield β_k² = Var h_{k−1}, what enters each block at initialisation (Brock et al. 2021, section 3).

    Var h_0 = 1, and Var h_k = Var h_{k−1} + α². Where the size changes, the skip works on h / β as the branch
    does, so the variance starts anew: Var h_k = 1 + α².

    Args:
        changes: of each block, whether the size changes.
        alpha: α.

    Examples:
        >>> list(predicted_variances([False, False, True, False], alpha=0.5))
        [1.0, 1.25, 1.5, 1.25]
    """
    variance = 1.0
    for change in changes:
        yield variance
        variance = (1.0 if change else variance) + alpha**2

"""The layers that tokens stand for, on 0, 1 or 2 axes of positions: [batch, features, *positions].

Networks for images begin with a convolution that hands on channels last, rather than hold their weights so: weights in
torch's order are what optimisers, files and `vmap` expect.
"""

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.nn._choice import choose, positive

__all__ = [
    "ACTIVATIONS",
    "NORMS",
    "ChannelRMSNorm",
    "FirstConv2d",
    "ScalarBias",
    "channels_last",
    "check_sizes",
    "make_activation",
    "make_norm",
    "make_weight",
    "shifts",
]

# Each maps 0 to 0, so that a branch that ends in zeros stays zero through its activation.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def make_activation(name: str) -> nn.Module:
    """Return the activation of this name."""
    return choose("activation", name, ACTIVATIONS)()


def make_weight(
    inputs: int, outputs: int, *, dims: int, stride: int = 1, kernel: int = 3, bias: bool = True
) -> nn.Module:
    """Return a linear layer (`dims=0`) or a convolution that keeps the length at stride 1 (odd kernels)."""
    check_sizes(inputs, outputs, dims=dims, stride=stride)
    if dims == 0:
        return nn.Linear(inputs, outputs, bias=bias)
    convolution = choose("dims", str(dims), {"1": nn.Conv1d, "2": nn.Conv2d})
    return convolution(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=bias)


def check_sizes(inputs: int, outputs: int, *, dims: int, stride: int) -> None:
    """Refuse sizes below 1, and a stride where there are no positions."""
    positive(inputs=inputs, outputs=outputs, stride=stride)
    if dims == 0 and stride != 1:
        raise ValueError(f"stride={stride} needs positions to step over, but dims=0 has features alone")


@final
class FirstConv2d(nn.Conv2d):
    """A convolution whose output has the channels of a position side by side in memory (channels last).

    Convolutions and what lies between them keep the order in which they find their input, so one such layer at the
    beginning decides for a whole network. On the CPU convolutions in this order are faster; the numbers differ by
    rounding alone.

    Args, shape: as of `torch.nn.Conv2d`.
    """

    def forward(self, h: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch outputs rows columns"]:
        """Return the convolution of h."""
        return super().forward(channels_last(h))


def channels_last(h: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
    """Return a copy of h that has the channels of a position side by side in memory."""
    # Not in one step, which vmap does not know; and a copy always, since images of one channel count as contiguous.
    return h.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)


@final
class ChannelRMSNorm(nn.Module):
    """h ↦ gain · h / √(mean(h²) + ε), the mean over channels and positions of each example.

    It is to `GroupNorm(1, channels)` what RMS norm (Zhang and Sennrich 2019) is to layer norm: the same
    without centring.

    Args:
        channels: number of channels; each has its own gain.
        eps: ε, added to the mean square.
    Shape: [batch, channels, *positions], kept.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every gain to 1."""
        nn.init.ones_(self.weight)

    def forward(self, h: Float[Tensor, "batch channels *positions"]) -> Float[Tensor, "batch channels *positions"]:
        """Return the normalised h."""
        gain = self.weight.view(-1, *(1 for _ in h.shape[2:]))
        return gain * nn.functional.rms_norm(h, h.shape[1:], eps=self.eps)


@final
class ScalarBias(nn.Module):
    """h ↦ h + b for one learned b that starts at 0: rule 3 of Fixup (Zhang et al. 2019).

    Shape: any, kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set b to 0."""
        nn.init.zeros_(self.bias)

    def forward(self, h: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return h + b."""
        return h + self.bias


def _groups(width: int) -> int:
    """Return the largest divisor of the width up to 8 that leaves 4 channels or more in each group."""
    return max(groups for groups in range(1, 9) if width % groups == 0 and (groups == 1 or width // groups >= 4))


def _batch(width: int, dims: int) -> nn.Module:
    return nn.BatchNorm2d(width) if dims == 2 else nn.BatchNorm1d(width)


def _layer(width: int, dims: int) -> nn.Module:
    return nn.LayerNorm(width) if dims == 0 else nn.GroupNorm(1, width)


def _rms(width: int, dims: int) -> nn.Module:
    return nn.RMSNorm(width, eps=1e-5) if dims == 0 else ChannelRMSNorm(width)


def _group(width: int, dims: int) -> nn.Module:
    return nn.GroupNorm(_groups(width), width)


NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "batch": _batch,
    "layer": _layer,
    "rms": _rms,
    "group": _group,
}


def make_norm(name: str, width: int, dims: int) -> nn.Module:
    """Return a norm of `width` features or channels.

    "batch" normalises each channel over the batch and the positions; "layer" and "rms" each example over all
    its channels and positions, with and without centring; "group" each example over groups of channels (at
    most 8 groups, of at least 4 channels) and all positions.
    """
    return choose("norm", name, NORMS)(width, dims)


def shifts(norm: str | None) -> bool:
    """Whether the norm adds a learned shift, which makes a bias in the layer before it superfluous."""
    return norm is not None and norm != "rms"

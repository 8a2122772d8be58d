"""What differs between networks on features, images and sequences: their layers with weights, and their two ends.

Families, schemes and shortcuts are values, not flags. So are Fixup and NF, values of `scale`: they replace norms and
decide how branch and skip add.

A family says which tokens stand for layers with weights (`tokens`, the usual one first), which `norms` and
`shortcuts` fit, and how many axes of positions follow the features (`dims`). It makes the layer that makes the stream
(`first`), plans the sizes of a branch's layers (`plan`), makes each (`make`), and what turns the stream into one vector
of features for each output (`pool`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import nn

from unbraid.nn._attention import MeanOverPositions, SelfAttention, SequenceEmbedding
from unbraid.nn._layers import NORMS, FirstConv2d, make_weight
from unbraid.nn._shortcuts import HARMFUL

__all__ = ["Attentive", "Convolutional", "Dense", "Family", "Layer"]


@final
@dataclass(frozen=True)
class Layer:
    """A layer with weights, not yet made.

    Attributes:
        token: what the order calls it.
        inputs: features or channels that arrive.
        outputs: features or channels that leave.
        kernel: positions in each direction, of a convolution.
    """

    token: str
    inputs: int
    outputs: int
    kernel: int = 3


@final
@dataclass(frozen=True)
class Dense:
    """Linear layers on feature vectors."""

    dims = 0
    tokens = ("linear",)
    norms = tuple(NORMS)
    shortcuts = ("identity", *HARMFUL)

    def first(self, inputs: int, width: int, *, bias: bool) -> nn.Module:
        """A linear layer."""
        return make_weight(inputs, width, dims=0, bias=bias)

    def plan(self, tokens: Sequence[str], inputs: int, outputs: int) -> list[Layer]:
        """The first layer changes the size."""
        return _plan(tokens, [inputs, *[outputs] * len(tokens)])

    def make(self, layer: Layer, *, stride: int, bias: bool) -> nn.Module:
        """A linear layer."""
        return make_weight(layer.inputs, layer.outputs, dims=0, stride=stride, bias=bias)

    def pool(self) -> list[nn.Module]:
        """Nothing."""
        return []


@final
@dataclass(frozen=True)
class Convolutional:
    """Convolutions on sequences or images.

    Attributes:
        dims: 1 for sequences, 2 for images.
        bottleneck: by how much the inner layers of a branch are narrower than its output. Above 1, the first and
            the last are 1x1 (He et al. 2015, figure 5).
    """

    dims: int
    bottleneck: int = 1
    tokens = ("conv",)
    norms = tuple(NORMS)
    shortcuts = ("pad", "projection", *HARMFUL)

    def first(self, inputs: int, width: int, *, bias: bool) -> nn.Module:
        """A convolution of kernels of 3 positions; that of images hands on an order in which others are fast."""
        if self.dims == 2:
            return FirstConv2d(inputs, width, 3, padding=1, bias=bias)
        return make_weight(inputs, width, dims=self.dims, bias=bias)

    def plan(self, tokens: Sequence[str], inputs: int, outputs: int) -> list[Layer]:
        """The first layer changes the size, or narrows where the last one widens."""
        if self.bottleneck == 1 or len(tokens) < 3:  # what follows an addition has fewer, and is no bottleneck
            return _plan(tokens, [inputs, *[outputs] * len(tokens)])
        inner = [outputs // self.bottleneck] * (len(tokens) - 1)
        return _plan(tokens, [inputs, *inner, outputs], kernels=[1, *[3] * (len(tokens) - 2), 1])

    def make(self, layer: Layer, *, stride: int, bias: bool) -> nn.Module:
        """A convolution."""
        return make_weight(layer.inputs, layer.outputs, dims=self.dims, stride=stride, kernel=layer.kernel, bias=bias)

    def pool(self) -> list[nn.Module]:
        """The mean over positions."""
        return [nn.AdaptiveAvgPool1d(1) if self.dims == 1 else nn.AdaptiveAvgPool2d(1), nn.Flatten()]


@final
@dataclass(frozen=True)
class Attentive:
    """Self-attention and linear layers on sequences [batch, positions, features].

    Attributes:
        heads: of an attention.
        causal: whether a position sees those up to itself alone.
        expansion: by how much the inner features of a branch of several linear layers are more than its output.
        vocabulary: how many tokens there are; None where the inputs are features.
        positions: the longest sequence.
        readout: "mean" over positions, or "each" position by itself.
    """

    heads: int
    causal: bool
    expansion: int
    vocabulary: int | None
    positions: int
    readout: str
    dims = 0
    tokens = ("linear", "attention")
    norms = ("layer", "rms")
    shortcuts = ("identity",)

    def first(self, inputs: int, width: int, *, bias: bool) -> nn.Module:
        """A linear layer or a table, with a vector for each position."""
        linear = self.vocabulary is None
        content = nn.Linear(inputs, width, bias=bias) if linear else nn.Embedding(self.vocabulary or 0, width)
        return SequenceEmbedding(content, positions=self.positions, width=width)

    def plan(self, tokens: Sequence[str], inputs: int, outputs: int) -> list[Layer]:
        """The first linear layer of several widens, the last one narrows; attention keeps the width."""
        last = max((place for place, token in enumerate(tokens) if token == "linear"), default=-1)
        first = tokens.index("linear") if last >= 0 else -1
        sizes = [inputs]
        for place, token in enumerate(tokens):
            inner = token == "linear" and first <= place < last
            ends = token == "linear" and place == last
            sizes.append(self.expansion * outputs if inner else outputs if ends else sizes[-1])
        return _plan(tokens, sizes)

    def make(self, layer: Layer, *, stride: int, bias: bool) -> nn.Module:
        """Self-attention or a linear layer."""
        if layer.token == "attention":
            return SelfAttention(layer.outputs, heads=self.heads, causal=self.causal, bias=bias)
        return nn.Linear(layer.inputs, layer.outputs, bias=bias)

    def pool(self) -> list[nn.Module]:
        """The mean over positions, where it is asked for."""
        return [MeanOverPositions()] if self.readout == "mean" else []


Family = Dense | Convolutional | Attentive


def _plan(tokens: Sequence[str], sizes: Sequence[int], kernels: Sequence[int] | None = None) -> list[Layer]:
    taken = kernels or [3] * len(tokens)
    return [Layer(*parts) for parts in zip(tokens, sizes[:-1], sizes[1:], taken, strict=True)]

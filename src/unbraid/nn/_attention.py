"""Self-attention, and what a transformer needs before and after its blocks.

Attention is spelled out, as torch's fused kernel on the CPU has no rule for vmap, by which networks train side by side.
"""

from typing import final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from unbraid.errors import ShapeError
from unbraid.nn._choice import positive

__all__ = ["MeanOverPositions", "SelfAttention", "SequenceEmbedding"]


@final
class SelfAttention(nn.Module):
    """h ↦ W_o [A_1 V_1; …; A_H V_H] with A_i = softmax(Q_i K_iᵀ / √d): Vaswani et al. (2017), equation 1.

    Queries, keys and values are linear maps of h, cut into H heads of d = width / H features.

    Args:
        width: features of a position.
        heads: H.
        causal: whether a position sees those up to itself alone.
        bias: whether the four linear maps have biases.
    Shape: [batch, positions, width], kept.
    Raises: ValueError for sizes below 1, or a width that the heads do not divide.

    Examples:
        >>> SelfAttention(8, heads=2)(torch.randn(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, *, heads: int, causal: bool = False, bias: bool = True) -> None:
        super().__init__()
        positive(width=width, heads=heads)
        if width % heads:
            raise ValueError(f"attention: {heads} heads cannot share {width} features evenly; {_nearest(width, heads)}")
        self.heads, self.causal = heads, causal
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, h: Float[Tensor, "batch positions width"]) -> Float[Tensor, "batch positions width"]:
        """Return what the heads gather, mixed."""
        query, key, value = (self._split(layer(h)) for layer in (self.query, self.key, self.value))
        # Spelled out, since many networks are trained at once by vmap, which torch's fused attention does not know.
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        if self.causal:
            scores = scores.masked_fill(torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1), -torch.inf)
        return self.out((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))

    def _split(self, h: Float[Tensor, "batch positions width"]) -> Float[Tensor, "batch heads positions features"]:
        return torch.unflatten(h, -1, (self.heads, -1)).transpose(1, 2)

    def extra_repr(self) -> str:
        """Say the number of heads, and whether they look ahead."""
        return f"heads={self.heads}, causal={self.causal}"


@final
class SequenceEmbedding(nn.Module):
    """h_0 = content(x) + position: each position's own features, plus a learned vector that says where it is.

    Args:
        content: maps x to [batch, positions, width]: a linear map of features, or a table of tokens.
        positions: the longest sequence; each place has its own vector.
        width: features of h.
    Shape: [batch, positions, *inputs] -> [batch, positions, width].
    Raises: ShapeError where a sequence is longer than `positions`.

    Examples:
        >>> SequenceEmbedding(nn.Linear(3, 8), positions=5, width=8)(torch.randn(2, 4, 3)).shape
        torch.Size([2, 4, 8])
    """

    def __init__(self, content: nn.Module, *, positions: int, width: int) -> None:
        super().__init__()
        positive(positions=positions, width=width)
        self.content = content
        self.position = nn.Parameter(torch.empty(positions, width))
        self.reset_tables()

    def reset_tables(self, generator: torch.Generator | None = None) -> None:
        """Draw a table of tokens from N(0, 1), as torch does, and positions from N(0, 0.02²), as BERT and ViT do.

        Args:
            generator: where the draws come from; None is torch's own.
        """
        if isinstance(self.content, nn.Embedding):
            nn.init.normal_(self.content.weight, generator=generator)
        nn.init.normal_(self.position, std=0.02, generator=generator)

    def forward(self, x: Shaped[Tensor, "batch positions *inputs"]) -> Float[Tensor, "batch positions width"]:
        """Return h_0."""
        if x.shape[1] > len(self.position):
            raise ShapeError(
                f"embedding: a sequence may have {len(self.position)} positions; this one has {int(x.shape[1])}.\n"
                f"  Cut it, or make the network with positions={int(x.shape[1])}.",
                block="stem",
                shapes={"input": tuple(int(size) for size in x.shape)},
            )
        return self.content(x) + self.position[: x.shape[1]]


@final
class MeanOverPositions(nn.Module):
    """h ↦ the mean of h over its positions.

    Shape: [batch, positions, width] -> [batch, width].
    """

    def forward(self, h: Float[Tensor, "batch positions width"]) -> Float[Tensor, "batch width"]:
        """Return the mean."""
        return h.mean(1)


def _nearest(width: int, heads: int) -> str:
    divisors = [number for number in range(1, width + 1) if width % number == 0]
    return f"nearest: heads={min(divisors, key=lambda number: abs(number - heads))}."

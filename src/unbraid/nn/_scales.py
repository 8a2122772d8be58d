"""Scales of the branch: a constant, a learned scalar, and stochastic depth."""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.nn._choice import choose

__all__ = ["FixedScale", "LearnedScale", "StochasticDepth", "branch_scale"]


@final
class FixedScale(nn.Module):
    """f ↦ c · f for a constant c: with c = 1/√K the variance of h stays bounded over K blocks.

    Args:
        value: c.
    Shape: any, kept.
    """

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, f: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return c · f."""
        return self.value * f

    def extra_repr(self) -> str:
        """Say the constant."""
        return f"{self.value:.6g}"


@final
class LearnedScale(nn.Module):
    """f ↦ α · f for one learned α that starts at 0, so that the block starts as its skip.

    SkipInit (De and Smith 2020), ReZero (Bachlechner et al. 2021).

    Args:
        start: α before training.
    Shape: any, kept.
    """

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.start = start
        self.alpha = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set α to its start."""
        nn.init.constant_(self.alpha, self.start)

    def forward(self, f: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return α · f."""
        return self.alpha * f

    def extra_repr(self) -> str:
        """Say where α starts."""
        return f"start={self.start:g}"


@final
class StochasticDepth(nn.Module):
    """f ↦ b · f / (1 − p) with b = 0 at probability p, drawn for each example; the identity in eval mode.

    Huang et al. (2016), who draw once a batch and scale by 1 − p when testing instead; the expectation is the
    same. The draws come from torch's own generator, as those of `torch.nn.Dropout` do.

    Args:
        probability: p, of dropping the branch, in [0, 1).
    Shape: [batch, *features], kept.
    Raises: ValueError where p is outside [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"stochastic depth: the probability must be in [0, 1), but is {probability}")
        self.probability = probability

    def forward(self, f: Float[Tensor, "batch *features"]) -> Float[Tensor, "batch *features"]:
        """Return f with the branches of some examples set to 0."""
        if not self.training:
            return f
        # Dropout of one number an example: it draws b and divides by 1 - p.
        return f * nn.functional.dropout(f.new_ones(f.shape[0], *(1 for _ in f.shape[1:])), self.probability)

    def extra_repr(self) -> str:
        """Say the probability."""
        return f"{self.probability:.6g}"


def branch_scale(scale: float | str, *, stochastic_depth: float, block: int, blocks: int) -> nn.Module | None:
    """Return the scale of block k of K, with stochastic depth of probability p_k = (k/K) p_K.

    Args:
        scale: a constant; "1/sqrt(2)"; "1/sqrt(K)", with K the number of blocks; "learned", a scalar that
            starts at 0; or "zero", which scales by 1 (the branch's last layer is what starts at 0).
        stochastic_depth: p_K, the probability of dropping the last block's branch.
        block: k, from 1.
        blocks: K.
    """
    both = (_scale(scale, blocks), _depth(stochastic_depth * block / blocks))
    parts = [part for part in both if part is not None]
    return nn.Sequential(*parts) if len(parts) > 1 else parts[0] if parts else None


def _scale(scale: float | str, blocks: int) -> nn.Module | None:
    if scale == "learned":
        return LearnedScale()
    named = {"1/sqrt(2)": 1 / math.sqrt(2), "1/sqrt(K)": 1 / math.sqrt(blocks), "learned": 0.0, "zero": 1.0}
    value = choose("scale", scale, named) if isinstance(scale, str) else scale
    return None if value == 1 else FixedScale(value)


def _depth(probability: float) -> nn.Module | None:
    return StochasticDepth(probability) if probability else None

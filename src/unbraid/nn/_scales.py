"""Scales of the branch: a constant, a learned scalar or one for each feature, and stochastic depth."""

import math
from collections.abc import Callable, Iterable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.nn._choice import choose

__all__ = ["ALPHA", "FixedScale", "LayerScale", "LearnedScale", "StochasticDepth", "branch_scale"]

ALPHA = 0.2  # of scale="nf": the value of Brock et al. (2021)


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
class LayerScale(nn.Module):
    """f ↦ diag(λ) f, one learned λ for each feature, all small at first: LayerScale (Touvron et al. 2021).

    Args:
        features: features or channels.
        start: λ before training.
        dims: number of position axes that follow the features: 2 for images, 1 for sequences, 0 where the
            features come last.
    Shape: [batch, features, *positions], or [batch, *positions, features] for `dims=0`; kept.
    """

    def __init__(self, features: int, start: float = 1e-5, dims: int = 0) -> None:
        super().__init__()
        self.start, self.dims = start, dims
        self.gains = nn.Parameter(torch.empty(features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every λ to its start."""
        nn.init.constant_(self.gains, self.start)

    def forward(self, f: Float[Tensor, "batch *features"]) -> Float[Tensor, "batch *features"]:
        """Return diag(λ) f."""
        return self.gains.view(-1, *(1,) * self.dims) * f

    def extra_repr(self) -> str:
        """Say the number of features, and where λ starts."""
        return f"{len(self.gains)}, start={self.start:g}"


@final
class StochasticDepth(nn.Module):
    """f ↦ b · f / (1 − p) with b = 0 at probability p, drawn for each example; the identity in eval mode.

    Huang et al. (2016), who draw once per batch and scale by 1 − p when testing instead; the expectation is the
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
        # Dropout of one number per example: it draws b and divides by 1 - p.
        return f * nn.functional.dropout(f.new_ones(f.shape[0], *(1 for _ in f.shape[1:])), self.probability)

    def extra_repr(self) -> str:
        """Say the probability."""
        return f"{self.probability:.6g}"


def branch_scale(
    scale: float | str, *, stochastic_depth: float, block: int, blocks: int, features: int, dims: int
) -> nn.Module | None:
    """Return the scale of block k of K, with stochastic depth of probability p_k = (k/K) p_K.

    Args:
        scale: a constant; "1/sqrt(2)"; "1/sqrt(K)", with K the number of blocks; "learned", a scalar that
            starts at 0; "layerscale"; "fixup", a scalar that starts at 1; "nf", the constant α = 0.2; or
            "zero", which scales by 1 (the branch's last layer is what starts at 0).
        stochastic_depth: p_K, the probability of dropping the last block's branch.
        block: k, from 1.
        blocks: K.
        features: of the branch's output.
        dims: number of position axes that follow the features.
    """
    learned: dict[object, Callable[[], nn.Module]] = {
        "learned": LearnedScale,
        "fixup": lambda: LearnedScale(start=1.0),
        "layerscale": lambda: LayerScale(features, layer_scale_start(blocks), dims),
    }
    both = (
        learned[scale]() if scale in learned else _constant(scale, blocks, learned),
        StochasticDepth(stochastic_depth * block / blocks) if stochastic_depth else None,
    )
    parts = [part for part in both if part is not None]
    return nn.Sequential(*parts) if len(parts) > 1 else parts[0] if parts else None


def layer_scale_start(blocks: int) -> float:
    """Return λ at the start: 0.1, 1e-5 or 1e-6 for up to 18, up to 24, or more layers of two blocks each.

    Touvron et al. (2021), section 2.
    """
    return 0.1 if blocks <= 36 else 1e-5 if blocks <= 48 else 1e-6


def _constant(scale: float | str, blocks: int, others: Iterable[object]) -> nn.Module | None:
    named = {"1/sqrt(2)": 1 / math.sqrt(2), "1/sqrt(K)": 1 / math.sqrt(blocks), "nf": ALPHA, "zero": 1.0}
    # The names that stand for modules are listed too, where a name is unknown.
    options = {**named, **{str(name): 1.0 for name in others}}
    value = choose("scale", scale, options) if isinstance(scale, str) else scale
    return None if value == 1 else FixedScale(value)

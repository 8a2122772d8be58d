"""Closed forms for signals and gradients at initialisation, to draw beside measurements.

The theorems on shattering hold in a setting of their own, units on or off independently for two inputs, and are tested
there. In real networks without a norm the signals of all inputs become alike with depth, and gradients stay correlated.

Each holds for random weights under the assumptions that it names; `k` or `blocks` counts residual blocks or layers.
"""

import math
from collections.abc import Callable

__all__ = [
    "CURVES",
    "plain_correlation",
    "residual_correlation",
    "residual_correlation_batch_norm",
    "residual_correlation_limit",
    "variance_batch_norm",
    "variance_doubling",
    "variance_fixup",
    "variance_rescaled",
    "variance_scaled",
]


def variance_doubling(blocks: int) -> list[float]:
    """Var h_k = 2^k Var h_0: each branch keeps the variance, and the sum of two uncorrelated signals has both.

    For branches initialised after He et al. (2015) without a norm, as in figure 11.6a of Prince (2023), for k = 0 to K.
    """
    return [2.0**k for k in range(blocks + 1)]


def variance_rescaled(blocks: int) -> list[float]:
    """Var h_k = Var h_0 where every sum is multiplied by 1/√2, figure 11.6b of Prince (2023)."""
    return [1.0] * (blocks + 1)


def variance_batch_norm(blocks: int) -> list[float]:
    """Var h_k = Var h_0 + k with Var h_0 = 1: a branch that begins with batch norm adds a variance of one per block.

    Figure 11.6c of Prince (2023); De and Smith (2020), section 3.
    """
    return [1.0 + k for k in range(blocks + 1)]


def variance_scaled(blocks: int, scale: float | None = None) -> list[float]:
    """Var h_k = (1 + α²)^k Var h_0 for branches that keep the variance and are multiplied by α.

    Args:
        blocks: K.
        scale: α, by default 1/√K, with which the variance grows to no more than e (Hanin and Rolnick 2018; Arpit et al.
            2019).
    """
    alpha = 1 / math.sqrt(blocks) if scale is None else scale
    return [(1 + alpha**2) ** k for k in range(blocks + 1)]


def variance_fixup(blocks: int) -> list[float]:
    """Var h_k = Var h_0: the last layer of every branch begins at zero (Zhang, Dauphin and Ma 2019)."""
    return [1.0] * (blocks + 1)


def plain_correlation(layers: int) -> float:
    """2^−L: the correlation of the gradients at two inputs in a plain ReLU network (Balduzzi et al. 2017, theorem 1).

    A backward pass keeps a gradient's variance (He et al. 2015) where a unit is on for one input, which is for half of
    the units; for both inputs it is on for a quarter, so that the covariance halves at each layer. The theorem takes
    units to be on independently for the two inputs, at every layer.
    """
    return 0.5**layers


def residual_correlation(blocks: int) -> float:
    """(3/4)^L for residual blocks without a norm: the variance doubles, the covariance grows by 3/2 (theorem 2)."""
    return 0.75**blocks


def residual_correlation_batch_norm(blocks: int, scale: float = 1.0) -> float:
    """∏_l (1 + β²/(2 v_l)) / (1 + β²/v_l) with v_l = 1 + β²(l − 1) for l = 1 to L; see `residual_correlation_limit`.

    A branch that begins with batch norm divides by the standard deviation of its input, which grows with depth, so that
    later branches change the gradient less and less (Balduzzi et al. 2017, theorem 3).

    Args:
        blocks: L.
        scale: β, by which branches are multiplied.
    """
    correlation = 1.0
    for level in range(blocks):
        variance = 1 + scale**2 * level
        correlation *= (1 + scale**2 / (2 * variance)) / (1 + scale**2 / variance)
    return correlation


def residual_correlation_limit(blocks: int, scale: float = 1.0) -> float:
    """1/(β√L), the rate at which `residual_correlation_batch_norm` falls for large L (theorem 3).

    Args:
        blocks: L, large beside 1/β².
        scale: β.
    """
    return 1 / (scale * math.sqrt(blocks))


# The variance by depth of each kind of network, by name.
CURVES: dict[str, Callable[[int], list[float]]] = {
    "doubling": variance_doubling,
    "1/√2": variance_rescaled,
    "batch norm": variance_batch_norm,
    "1/√K": variance_scaled,
    "Fixup": variance_fixup,
}

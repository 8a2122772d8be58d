"""What the layers of a branch need beside the order's own operations: nothing, or what replaces its norms.

A scheme says what the modules are for an activation (`act`), a layer with weights (`weight`) and the network's last one
(`head`), what stands first in a branch where a stream of some variance arrives (`entry`), and what becomes of a skip
that is not the identity (`skip`). `alpha` is α where the scheme predicts that variance, else 0.
"""

from dataclasses import dataclass
from typing import final

from torch import nn

from unbraid.nn._layers import ScalarBias, make_activation
from unbraid.nn._norm_free import WeightStandardised, activation_gain
from unbraid.nn._scales import ALPHA, FixedScale
from unbraid.nn._shortcuts import Projection

__all__ = ["Fixup", "NormFree", "Ordinary", "Scheme", "scheme"]


@final
@dataclass(frozen=True)
class Ordinary:
    """Each token is its module."""

    alpha = 0.0

    def act(self, activation: str) -> list[nn.Module]:
        """The activation."""
        return [make_activation(activation)]

    def weight(self, layer: nn.Module) -> list[nn.Module]:
        """The layer."""
        return [layer]

    def entry(self, variance: float) -> list[nn.Module]:
        """Nothing."""
        return []

    def skip(self, skip: nn.Module, variance: float) -> nn.Module:
        """The skip."""
        return skip

    def head(self, layer: nn.Linear) -> list[nn.Module]:
        """As any layer."""
        return self.weight(layer)


@final
@dataclass(frozen=True)
class Fixup:
    """A scalar bias before each layer and each activation (Zhang et al. 2019, rule 3)."""

    alpha = 0.0

    def act(self, activation: str) -> list[nn.Module]:
        """The activation, after a bias."""
        return [ScalarBias(), make_activation(activation)]

    def weight(self, layer: nn.Module) -> list[nn.Module]:
        """The layer, after a bias."""
        return [ScalarBias(), layer]

    def entry(self, variance: float) -> list[nn.Module]:
        """Nothing."""
        return []

    def skip(self, skip: nn.Module, variance: float) -> nn.Module:
        """The skip."""
        return skip

    def head(self, layer: nn.Linear) -> list[nn.Module]:
        """As any layer."""
        return self.weight(layer)


@final
@dataclass(frozen=True)
class NormFree:
    """h ← h + α f(h / β), f of standardised weights and scaled activations (Brock et al. 2021)."""

    alpha = ALPHA

    def act(self, activation: str) -> list[nn.Module]:
        """γ φ."""
        return [make_activation(activation), FixedScale(activation_gain(activation))]

    def weight(self, layer: nn.Module) -> list[nn.Module]:
        """The layer, its weights standardised."""
        assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)  # transformers are refused before
        return [WeightStandardised(layer)]

    def entry(self, variance: float) -> list[nn.Module]:
        """1 / β."""
        return [FixedScale(variance**-0.5)]

    def skip(self, skip: nn.Module, variance: float) -> nn.Module:
        """A projection of h / β, its weights standardised."""
        assert isinstance(skip, Projection)  # other shortcuts are refused before
        (skip.linear,) = self.weight(skip.linear)
        return nn.Sequential(*self.entry(variance), skip)

    def head(self, layer: nn.Linear) -> list[nn.Module]:
        """The layer as it is: no variance is to be kept."""
        return [layer]


Scheme = Ordinary | Fixup | NormFree


def scheme(scale: float | str) -> Scheme:
    """Return the scheme that a scale asks for."""
    if scale == "fixup":
        return Fixup()
    return NormFree() if scale == "nf" else Ordinary()

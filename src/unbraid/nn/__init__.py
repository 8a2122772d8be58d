"""Build residual networks and their plain twins (Equations 11.1 and 11.4).

- A network in one line: `mlp`, `conv1d`, `conv2d`, `transformer`; again from its config: `build`.
- Its parts: `ResidualBlock` in a `ResidualNetwork`, `PlainLayer` in a `PlainNetwork`.
- The order of operations in a block: `Order`.
- Skips that change the size: `Projection`, `ZeroPad`. Gates: `Gate`, `GatedSkip`, `GatedBranch`.
- Scales of the branch: `FixedScale`, `LearnedScale`, `LayerScale`, `StochasticDepth`.
- Layers: `SelfAttention`, `SequenceEmbedding`, `MeanOverPositions`; without norms, `WeightStandardised`, `ScalarBias`.
- First weights, and what they should do to the variance: `nn.init`.
"""

from typing import TYPE_CHECKING

from unbraid.nn import init as init
from unbraid.nn._attention import MeanOverPositions, SelfAttention, SequenceEmbedding
from unbraid.nn._block import PlainLayer, ResidualBlock
from unbraid.nn._build import build
from unbraid.nn._conv import conv1d, conv2d
from unbraid.nn._gates import Gate, GatedBranch, GatedSkip
from unbraid.nn._layers import ChannelRMSNorm, ScalarBias
from unbraid.nn._mlp import mlp
from unbraid.nn._network import PlainNetwork, ResidualNetwork
from unbraid.nn._norm_free import WeightStandardised
from unbraid.nn._order import Order
from unbraid.nn._scales import FixedScale, LayerScale, LearnedScale, StochasticDepth
from unbraid.nn._shortcuts import Projection, ZeroPad
from unbraid.nn._transformer import transformer

__all__ = [
    "ChannelRMSNorm",
    "FixedScale",
    "Gate",
    "GatedBranch",
    "GatedSkip",
    "LayerScale",
    "LearnedScale",
    "MeanOverPositions",
    "Order",
    "PlainLayer",
    "PlainNetwork",
    "Projection",
    "ResidualBlock",
    "ResidualNetwork",
    "ScalarBias",
    "SelfAttention",
    "SequenceEmbedding",
    "StochasticDepth",
    "WeightStandardised",
    "ZeroPad",
    "build",
    "conv1d",
    "conv2d",
    "mlp",
    "transformer",
]

if not TYPE_CHECKING:  # which would take any name for known

    def __getattr__(name: str) -> object:
        # What is in `init` now stood here once: code that was written then goes on, as it means the same.
        if name in init.__all__:
            return getattr(init, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

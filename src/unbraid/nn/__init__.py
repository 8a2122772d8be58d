"""Build residual networks and their plain twins (Equations 11.1 and 11.4).

- A network in one line: `mlp`, `conv1d`, `conv2d`; again from its config: `build`.
- Its parts: `ResidualBlock` in a `ResidualNetwork`, `PlainLayer` in a `PlainNetwork`.
- The order of operations in a block: `Order`.
- Skips that change the size: `Projection`, `ZeroPad`.
- Scales of the branch: `FixedScale`, `LearnedScale`, `StochasticDepth`.
- First weights: `initialise_`, `he_`, `glorot_`, `zero_last_`.
"""

from unbraid.nn._block import PlainLayer, ResidualBlock
from unbraid.nn._build import build
from unbraid.nn._conv import conv1d, conv2d
from unbraid.nn._init import glorot_, he_, initialise_, zero_last_
from unbraid.nn._layers import ChannelRMSNorm
from unbraid.nn._mlp import mlp
from unbraid.nn._network import PlainNetwork, ResidualNetwork
from unbraid.nn._order import Order
from unbraid.nn._scales import FixedScale, LearnedScale, StochasticDepth
from unbraid.nn._shortcuts import Projection, ZeroPad

__all__ = [
    "ChannelRMSNorm",
    "FixedScale",
    "LearnedScale",
    "Order",
    "PlainLayer",
    "PlainNetwork",
    "Projection",
    "ResidualBlock",
    "ResidualNetwork",
    "StochasticDepth",
    "ZeroPad",
    "build",
    "conv1d",
    "conv2d",
    "glorot_",
    "he_",
    "initialise_",
    "mlp",
    "zero_last_",
]

"""The project's own networks in float64, with no zero among their parameters, and hooks on them."""

import torch
from torch import Tensor, nn

import unbraid.nn as unn
from networks import Residual, lively, mlp, normal

# Every order of operations of figure 11.5 and of He et al. (2016), for features and for convolutions.
LINEAR = (
    "linear act +",
    "act linear +",
    "act linear act linear +",
    "linear norm act linear norm + act",
    "linear norm act linear + norm act",
    "linear norm act linear norm act +",
    "act linear norm act linear norm +",
    "norm act linear norm act linear +",
)
CONV = tuple(order.replace("linear", "conv") for order in LINEAR[3:])


def features(**options) -> nn.Module:
    """mlp of width 6 on 5 inputs."""
    return lively(unn.mlp(**{"inputs": 5, "width": 6, "depth": 3, "classes": 4, **options}))


def images(**options) -> nn.Module:
    return lively(unn.conv2d(**{"inputs": 2, "layers": 8, "width": 4, "classes": 3, **options}), scale=0.2)


def sequences(**options) -> nn.Module:
    return lively(unn.conv1d(**{"inputs": 2, "layers": 8, "width": 4, "classes": 3, **options}), scale=0.3)


class Reader(nn.Module):
    """Positions stay: [batch, positions, 6] -> [batch, positions, 4], a norm in the head."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Residual(mlp(6)) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 4)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def batch(network: nn.Module, seed: int = 1) -> Tensor:
    """Three examples that fit the network."""
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
    if not convolutions:
        return normal(3, 5, seed=seed)
    return normal(3, 2, *((9,) if isinstance(convolutions[0], nn.Conv1d) else (6, 6)), seed=seed)


def observed(network: nn.Module, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Input and output of every module of the untouched network, by forward hooks."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name):
        return lambda module, args, output: seen.__setitem__(name, (args[0].detach(), output.detach()))

    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules()]
    with torch.no_grad():
        network(x)
    for handle in handles:
        handle.remove()
    return seen

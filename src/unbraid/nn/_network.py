"""A network of residual blocks, and its plain twin."""

import copy
from collections.abc import Iterable
from typing import Any, final

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from unbraid.nn._block import ResidualBlock, plain_layer

__all__ = ["PlainNetwork", "ResidualNetwork"]

Config = dict[str, Any]


@final
class PlainNetwork(nn.Module):
    """y = head(f_K(… f_1(stem(x)))): Equation 11.1, with a stem and a head.

    Args:
        stem: maps the input to h_0.
        layers: f_1 to f_K, in order.
        head: maps h_K to the output.
        config: what `build` needs to make this architecture again; None for a network put together by hand.
    Shape: [batch, *inputs] -> [batch, *outputs].
    """

    def __init__(
        self, stem: nn.Module, layers: Iterable[nn.Module], head: nn.Module, *, config: Config | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.stem = stem
        self.layers = nn.Sequential(*layers)
        self.head = head

    def forward(self, x: Shaped[Tensor, "batch *inputs"]) -> Float[Tensor, "batch *outputs"]:
        """Return the network's output."""
        return self.head(self.layers(self.stem(x)))


@final
class ResidualNetwork(nn.Module):
    """y = head(h_K), h_k = after(skip(h_{k-1}) + scale(f_k(h_{k-1}))), h_0 = stem(x): Equation 11.4.

    Args:
        stem: maps the input to h_0.
        blocks: in order, usually `ResidualBlock`s; any other module is a step of the trunk.
        head: maps h_K to the output.
        config: what `build` needs to make this architecture again; None for a network put together by hand.
    Shape: [batch, *inputs] -> [batch, *outputs].
    Raises: ShapeError at the first call where a block's skip and branch disagree in shape; it names the
        block.

    Example:
        >>> blocks = [ResidualBlock(nn.Linear(100, 100)) for _ in range(3)]
        >>> network = ResidualNetwork(nn.Linear(40, 100), blocks, nn.Linear(100, 10))
    """

    def __init__(
        self, stem: nn.Module, blocks: Iterable[nn.Module], head: nn.Module, *, config: Config | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.head = head
        for path, module in self.blocks.named_modules(prefix="blocks"):
            if isinstance(module, ResidualBlock):
                module.name = f'block {path.removeprefix("blocks.")} ("{path}")'

    def forward(self, x: Shaped[Tensor, "batch *inputs"]) -> Float[Tensor, "batch *outputs"]:
        """Return the network's output."""
        return self.head(self.blocks(self.stem(x)))

    def plain(self) -> PlainNetwork:
        """Return the plain twin: each block becomes after(scale(branch(h))), with a copy of the same weights.

        The two differ in the skips alone, so a skip's own parameters (a projection) are gone. Stochastic
        depth is gone too: without a skip, dropping the only route would drop the signal.

        The scale stays. Where it starts at zero ("learned", "zero"), so does each layer of the twin; with
        "1/sqrt(K)" each layer shrinks the signal by 1/√K. To compare with a plain network as one would train
        it, take the twin of scale 1: the same seed gives the same weights at any constant scale.
        """
        # One copy of the whole, so that weights shared by several blocks stay shared.
        twin = copy.deepcopy(self)
        layers = [plain_layer(block) if isinstance(block, ResidualBlock) else block for block in twin.blocks]
        config = None if twin.config is None else {**twin.config, "plain": True}
        return PlainNetwork(twin.stem, layers, twin.head, config=config)

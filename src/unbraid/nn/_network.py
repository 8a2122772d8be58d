"""A network of residual blocks, and its plain twin."""

import copy
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, final

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from unbraid.nn._block import ResidualBlock, plain_layer
from unbraid.nn._checkpointing import run_blocks

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

    Attributes:
        checkpointing: set it to keep about √K of the activations for the gradient and compute the others twice.
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
        self.checkpointing = False

    def forward(self, x: Shaped[Tensor, "batch *inputs"]) -> Float[Tensor, "batch *outputs"]:
        """Return the network's output."""
        return self.head(run_blocks(self.layers, self.stem(x), checkpointing=self.checkpointing))

    def without(self, *layers: int) -> "PlainNetwork":
        """Return a copy without some layers; the identity takes their place, so they should keep the size.

        The other layers keep their numbers. Raises IndexError where there is no layer of some number.
        """
        twin = copy.deepcopy(self)
        twin.layers = _thinned("layer", twin.layers, layers)
        twin.config = _lacking(twin.config, layers)
        return twin


@final
class ResidualNetwork(nn.Module):
    """y = head(h_K), h_k = after(skip(h_{k-1}) + scale(f_k(h_{k-1}))), h_0 = stem(x): Equation 11.4.

    Args:
        stem: maps the input to h_0.
        blocks: in order, usually `ResidualBlock`s; any other module is a step of the trunk.
        head: maps h_K to the output.
        config: what `build` needs to make this architecture again; None for a network put together by hand.

    Attributes:
        checkpointing: set it to keep about √K of the activations for the gradient and compute the others twice.
    Shape: [batch, *inputs] -> [batch, *outputs].
    Raises: ShapeError at the first call where a block's skip and branch disagree in shape; it names the
        block.

    Examples:
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
        self.checkpointing = False
        for path, module in self.blocks.named_modules(prefix="blocks"):
            if isinstance(module, ResidualBlock):
                module.name = f'block {path.removeprefix("blocks.")} ("{path}")'

    def forward(self, x: Shaped[Tensor, "batch *inputs"]) -> Float[Tensor, "batch *outputs"]:
        """Return the network's output."""
        return self.head(run_blocks(self.blocks, self.stem(x), checkpointing=self.checkpointing))

    def without(self, *blocks: int) -> "ResidualNetwork":
        """Return a copy without the branches of some blocks, h ← after(skip(h)): its terms are gone from Equation 11.5.

        A block of which nothing is left goes whole. The others keep their numbers: block 4 is `blocks.4`, also
        without block 3. Raises IndexError where there is no block of some number.
        """
        twin = copy.deepcopy(self)
        twin.blocks = _thinned("block", twin.blocks, blocks)
        twin.config = _lacking(twin.config, blocks)
        return twin

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
        # A config says first that a network is plain, then what it lacks: of a block that lacks its branch nothing like
        # a plain layer is left.
        config = None if twin.config is None or "without" in twin.config else {**twin.config, "plain": True}
        return PlainNetwork(twin.stem, layers, twin.head, config=config)


def _thinned(kind: str, members: nn.Sequential, gone: tuple[int, ...]) -> nn.Sequential:
    """Return the members without some, under their old names."""
    named = OrderedDict(members.named_children())
    if unknown := [number for number in gone if str(number) not in named]:
        raise IndexError(f"without: there is no {kind} {unknown[0]}; there are {', '.join(named) or 'none'}.")
    for number in gone:
        member = named.pop(str(number))
        rest = {"skip": member.skip, "after": member.after} if isinstance(member, ResidualBlock) else {}
        left = OrderedDict((n, module) for n, module in rest.items() if not isinstance(module, nn.Identity))
        if left:
            named[str(number)] = nn.Sequential(left)
    return nn.Sequential(OrderedDict((name, named[name]) for name, _ in members.named_children() if name in named))


def _lacking(config: Config | None, gone: tuple[int, ...]) -> Config | None:
    """Return the config of a network that lacks some of its members."""
    lacks = sorted({*(config or {}).get("without", []), *gone})
    return {**config, "without": lacks} if config is not None and lacks else config

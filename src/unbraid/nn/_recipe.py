"""What the constructors share: the modules that an order of operations stands for."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from torch import nn

from unbraid.nn._block import ResidualBlock
from unbraid.nn._families import Family
from unbraid.nn._layers import make_norm, shifts
from unbraid.nn._norm_free import predicted_variances
from unbraid.nn._order import WEIGHT_TOKENS, Order
from unbraid.nn._scales import branch_scale
from unbraid.nn._schemes import Scheme, scheme
from unbraid.nn._shortcuts import SHORTCUTS, Site

__all__ = ["Recipe"]


@final
@dataclass(frozen=True)
class Recipe:
    """How to make a stem, blocks and a head of one order.

    Attributes:
        constructor: its name, for messages.
        family: the kind of layers with weights.
        blocks: K, the number of blocks.
        order: of the operations in a block.
        activation: what `act` stands for.
        norm: what `norm` stands for; None leaves the token out.
        shortcut: one of the family's.
        scale: of the branches, see `branch_scale`.
        stochastic_depth: probability of dropping the last block's branch.
        bias: whether layers have biases; None leaves them out where a norm shifts or scalar biases stand in.
        init: one of `INITS`.
    """

    constructor: str
    family: Family
    blocks: int
    order: Order
    activation: str
    norm: str | None
    shortcut: str
    scale: float | str
    stochastic_depth: float
    bias: bool | None
    init: str

    @property
    def scheme(self) -> Scheme:
        """What the scale asks of the layers."""
        return scheme(self.scale)

    @property
    def lead(self) -> tuple[str, ...]:
        """What a branch does before its first layer with weights."""
        return self.order.before[: next(i for i, token in enumerate(self.order.before) if token in WEIGHT_TOKENS)]

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens of the whole order, without the +."""
        return (*self.order.before, *self.order.after)

    @property
    def used_norm(self) -> str | None:
        """The norm, where the order has one."""
        return self.norm if "norm" in self.tokens else None

    @property
    def layer_bias(self) -> bool:
        """Whether layers of the stem and the branches have biases."""
        return not shifts(self.used_norm) and self.scale != "fixup" if self.bias is None else self.bias

    @property
    def head_lead(self) -> tuple[str, ...]:
        """The norm and act of full pre-activation, which no block applies to what the last one hands on."""
        return self.lead if self.lead[:1] == ("norm",) else ()

    def stem(self, inputs: int, width: int) -> nn.Module:
        """The first layer, then those of norm and activation that the first block does not begin with."""
        rest = {(): ("norm", "act"), ("act",): ("norm",)}.get(self.lead, ())
        first = self.scheme.weight(self.family.first(inputs, width, bias=self.layer_bias))
        return _bare(nn.Sequential(*first, *self._modules([token for token in rest if token in self.tokens], width)))

    def chain(self, sites: Iterable[Site]) -> list[ResidualBlock]:
        """The blocks at these places, one after the other."""
        sites = list(sites)
        variances = predicted_variances([site.changes for site in sites], self.scheme.alpha)
        return [self.block(k, *place) for k, place in enumerate(zip(sites, variances, strict=True), 1)]

    def block(self, number: int, site: Site, variance: float = 1.0) -> ResidualBlock:
        """Block `number` of K, from 1; `variance` is that of its input, where the scheme predicts it."""
        layers = self._modules(self.order.before, site.inputs, site.outputs, site.stride)
        branch, skip = SHORTCUTS[self.shortcut](nn.Sequential(*self.scheme.entry(variance), *layers), site)
        return ResidualBlock(
            branch,
            skip=None if skip is None else self.scheme.skip(skip, variance),
            after=_bare(nn.Sequential(*self._modules(self.order.after, site.outputs))) if self.order.after else None,
            scale=branch_scale(
                self.scale,
                stochastic_depth=self.stochastic_depth,
                block=number,
                blocks=self.blocks,
                features=site.outputs,
                dims=self.family.dims,
            ),
        )

    def site(self, inputs: int, outputs: int, stride: int = 1) -> Site:
        """The place of a block of these sizes."""
        # In full pre-activation nothing normalises the trunk, a projection included (He et al. 2016).
        norm = None if self.lead[:1] == ("norm",) else self.used_norm
        return Site(inputs, outputs, stride, self.family.dims, norm, self.layer_bias)

    def head(self, width: int, classes: int) -> nn.Module:
        """A linear layer on the mean over positions, after the norm and act of full pre-activation."""
        last = self.scheme.head(nn.Linear(width, classes, bias=self.bias is not False))
        return _bare(nn.Sequential(*self._modules(self.head_lead, width), *self.family.pool(), *last))

    def _modules(
        self, tokens: Iterable[str], inputs: int, outputs: int | None = None, stride: int = 1
    ) -> list[nn.Module]:
        """The modules of the tokens; the first layer with weights changes the size."""
        tokens, width = list(tokens), inputs
        weights = [token for token in tokens if token in WEIGHT_TOKENS]
        layers = iter(self.family.plan(weights, inputs, outputs or inputs))
        modules: list[nn.Module] = []
        for token in tokens:
            if token == "act":
                modules += self.scheme.act(self.activation)
            elif token == "norm":
                modules += [make_norm(self.norm, width, self.family.dims)] if self.norm is not None else []
            else:
                layer = next(layers)
                modules += self.scheme.weight(self.family.make(layer, stride=stride, bias=self.layer_bias))
                width, stride = layer.outputs, 1
        return modules


def _bare(modules: nn.Sequential) -> nn.Module:
    """Return the only module of a sequence of one."""
    return modules[0] if len(modules) == 1 else modules

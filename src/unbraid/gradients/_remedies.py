"""What usually helps against a finding, less what the network has already."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from unbraid.form import ResidualForm
from unbraid.graph import Add, Segment
from unbraid.graph.operators import Kind, callee, operator_of
from unbraid.graph.questions import shape_only

__all__ = ["Build"]

SKIPS = "give the network skips that are the identity"
SCALE = "scale every branch by 1/√K"
NORM = "begin every branch with a norm"
ZERO = "begin training with the last layer of every branch at zero"
START = "initialise its layers for their activation (He et al. 2015)"
LESS_DEEP = "make it less deep"
LARGER_BATCHES = "use larger batches"

_DOWN = 0.1  # a branch multiplied by this or less is scaled, however many blocks there are (Balduzzi et al. 2017)


@dataclass(frozen=True)
class Build:
    """How a network is built, as far as advice depends on it; read from the graph.

    Attributes:
        skips: whether any block has a skip.
        identities: whether every block's skip is the identity.
        scaled: the blocks whose branches are all multiplied by a constant of 1/√K, 0.1, or less.
        normed: the blocks with a norm in each branch.
        blocks: how many blocks there are.
    """

    skips: bool
    identities: bool
    scaled: frozenset[int]
    normed: frozenset[int]
    blocks: int

    @staticmethod
    def of(form: ResidualForm) -> "Build":
        """Look at a form's top-level blocks."""
        adds = [add for add in form.adds if add.block < len(form.blocks)]
        makers = form.graph.makers
        least = 1.001 * max(_DOWN, len(adds) ** -0.5) if adds else _DOWN
        return Build(
            skips=any(add.skip is not None for add in adds),
            identities=all(block.skip == "identity" for block in form.blocks),
            scaled=frozenset(add.block for add in adds if _all(add, lambda s: _factor(form, makers.get(s)) <= least)),
            normed=frozenset(add.block for add in adds if _has_norm(form, add)),
            blocks=len(adds),
        )

    def against_growth(self) -> str:
        """What keeps a stream, or its gradient, from growing."""
        if not self.skips:
            return _sentence(*self._lacks(NORM), START)
        return _sentence(*self._lacks(SCALE), *self._lacks(NORM), ZERO)

    def against_decay(self, *, identities: bool) -> str:
        """What keeps a stream, or its gradient, from vanishing."""
        has = self.identities if identities else self.skips
        return _sentence(*(() if has else (SKIPS,)), START)

    def against_shattering(self) -> str:
        """What keeps gradients of neighbouring inputs alike (Balduzzi et al. 2017)."""
        if not self.skips:
            return _sentence(f"{SKIPS}, and {SCALE} or 0.1 (Balduzzi et al. 2017)", LARGER_BATCHES)
        return _sentence(*(f"{lacking} or 0.1 (Balduzzi et al. 2017)" for lacking in self._lacks(SCALE)), LESS_DEEP)

    def against_loudness(self, block: int) -> str:
        """What makes one branch smaller beside its skip."""
        scale = () if block in self.scaled else ("scale the branch by 1/√K",)
        norm = () if block in self.normed else ("put a norm first in it",)
        return _sentence(*scale, *norm, "give its last layer smaller weights")

    def _lacks(self, remedy: str) -> tuple[str, ...]:
        having = {SCALE: self.scaled, NORM: self.normed}[remedy]
        return () if len(having) == self.blocks else (remedy,)


def _sentence(*remedies: str) -> str:
    text = ", or ".join(remedies)
    return f"{text[0].upper()}{text[1:]}."


def _all(add: Add, holds: Any) -> bool:
    streams = [stream for stream in add.branches if stream is not None]
    return bool(streams) and all(map(holds, streams))


def _has_norm(form: ResidualForm, add: Add) -> bool:
    """Whether each branch of a block computes a norm, its own operator or a reciprocal root."""
    branches = {j for j, stream in enumerate(add.branches) if stream is not None}
    reached: set[int] = set()
    for segment in form.segments:
        if segment.block == add.block and segment.role == "branch" and isinstance(segment.code, fx.GraphModule):
            called = [node for node in segment.code.graph.nodes if node.op == "call_function"]
            if any(operator_of(node).kind is Kind.NORM or callee(node) is torch.ops.aten.rsqrt for node in called):
                reached |= branches if segment.branch is None else {segment.branch}
    return bool(branches) and branches <= reached


def _factor(form: ResidualForm, maker: Any) -> float:
    """The largest number by which a branch's result is multiplied last; 1 where it is not."""
    if not isinstance(maker, Segment) or not isinstance(maker.code, fx.GraphModule):
        return 1.0
    nodes = list(maker.code.graph.nodes)
    weights = dict(zip([n for n in nodes if n.op == "placeholder"][len(maker.inputs) :], maker.params, strict=True))
    node = nodes[-1].args[0]
    while isinstance(node, fx.Node) and node.op == "call_function" and shape_only(node):
        node = node.args[0]
    if not isinstance(node, fx.Node) or callee(node) not in (torch.ops.aten.mul, torch.ops.aten.div):
        return 1.0
    sizes = [_size(form, argument, weights) for argument in node.args[:2]]
    size = next((number for number in reversed(sizes) if number is not None), 1.0)
    return size if callee(node) is torch.ops.aten.mul else 1 / max(size, 1e-30)


def _size(form: ResidualForm, argument: Any, weights: dict[fx.Node, str]) -> float | None:
    """How large a constant is: a number's size, or the largest element of a tensor of the state."""
    if isinstance(argument, int | float):
        return abs(float(argument))
    while isinstance(argument, fx.Node) and argument.op == "call_function" and shape_only(argument):
        argument = argument.args[0]
    tensor = form.state.get(weights.get(argument, "")) if isinstance(argument, fx.Node) else None
    return float(tensor.detach().abs().max()) if isinstance(tensor, Tensor) and tensor.numel() else None

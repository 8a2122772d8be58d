"""The network of a plan, as ordinary modules, and what one of its sums can be told to do instead.

`told` makes every block hand its skip and its branches to a teller before it adds them: to mark a branch, to drop it,
or to let the gradient through one operand alone. The teller is this generator's, and knows nothing of unbraid.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor, nn

from generated.plan import Block, Branch, Plan
from generated.spellings import BY_NAME
from generated.steps import STEP, Relu_
from networks import F64, normal
from oracles.structure import Marks

CLASSES = 3
AFTER = {
    "nothing": lambda width: nn.Identity(),
    "relu": lambda width: nn.ReLU(),
    "relu_": lambda width: Relu_(),
    "tanh": lambda width: nn.Tanh(),
    "norm": lambda width: nn.LayerNorm(width),
    "linear": lambda width: nn.Linear(width, width),
    "reshaped": lambda width: STEP["reshaped"](width),
}


class Teller:
    """Leaves all as it is, and counts the sums in order of execution: an inner one before its outer one."""

    def __init__(self) -> None:
        self.number = -1
        self.plans: list[Block] = []

    def sum(self, block: "Residual", skip: Tensor, branches: list[Tensor]) -> Tensor:
        self.number += 1
        self.plans.append(block.plan)
        skip, branches = self.operands(skip, branches)
        return BY_NAME[block.plan.spelling](skip, branches)

    def operands(self, skip: Tensor, branches: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return skip, branches


class Residual(nn.Module):
    """after(skip(fork) + Σ_j branch_j(fork))."""

    def __init__(self, plan: Block, width: int, made: dict[Branch, nn.Module]) -> None:
        super().__init__()
        self.plan = plan
        self.teller: Teller | None = None
        self.norm = nn.LayerNorm(width) if plan.skip == "normed" else nn.Identity()
        self.skip = nn.Linear(width, width) if plan.skip == "projection" else nn.Identity()
        self.branches = nn.ModuleList(branch(b, width, made) for b in plan.branches)
        self.after = AFTER[plan.after](width)

    def forward(self, h: Tensor) -> Tensor:
        fork = self.norm(h)
        branches = [f(fork) for f in self.branches]
        skip = self.skip(fork)
        add = BY_NAME[self.plan.spelling]
        return self.after(add(skip, branches) if self.teller is None else self.teller.sum(self, skip, branches))


def branch(plan: Branch, width: int, made: dict[Branch, nn.Module]) -> nn.Module:
    """The steps; a branch that is to use its modules again takes those of an equal one."""
    first = replace(plan, again=False)
    if plan.again:
        return made[first]
    steps = [STEP[name](width) for name in plan.steps]
    inside = [Residual(block, width, made) for block in plan.blocks]
    made[first] = nn.Sequential(*steps[:1], *inside, *steps[1:])
    return made[first]


class Network(nn.Module):
    """[batch, width] or [batch, positions, width] → [batch, CLASSES]."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.order = (*range(len(plan.blocks)), *plan.again)
        made: dict[Branch, nn.Module] = {}
        self.blocks = nn.ModuleList(Residual(block, plan.width, made) for block in plan.blocks)
        self.head = nn.Linear(plan.width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for k in self.order:
            x = self.blocks[k](x)
        return self.head(x.flatten(1, -2).mean(1) if x.ndim > 2 else x)


def build(plan: Plan) -> tuple[Network, Tensor]:
    """The network with lively parameters, and an input."""
    network = Network(plan).to(F64)
    for number, parameter in enumerate(network.parameters()):
        spread = 0.7 if parameter.ndim > 1 else 0.4
        start = 1.0 if parameter.ndim == 1 and bool((parameter == 1).all()) else 0.0
        parameter.data = start + spread * normal(*parameter.shape, seed=1000 * plan.seed + number)
    sizes = (plan.batch, plan.positions, plan.width) if plan.positions else (plan.batch, plan.width)
    dtype = getattr(torch, plan.dtype)
    return network.to(dtype).train(plan.training), normal(*sizes, seed=plan.seed, dtype=dtype)


@contextmanager
def told(network: Network, teller: Teller) -> Iterator[None]:
    """Every block asks the teller."""
    blocks = [module for module in network.modules() if isinstance(module, Residual)]
    try:
        for block in blocks:
            block.teller = teller
        yield
    finally:
        for block in blocks:
            block.teller = None


class Marking(Teller):
    """Marks branches: all of the sums in question, or, opened, those that hold no blocks themselves."""

    def __init__(self, counted: set[int], opened: bool) -> None:
        super().__init__()
        self.marks, self.counted, self.opened = Marks(), counted, opened

    def operands(self, skip: Tensor, branches: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if self.number not in self.counted:
            return skip, branches
        closed = [not (self.opened and b.blocks) for b in self.plans[-1].branches]
        return skip, [self.marks(b) if c else b for b, c in zip(branches, closed, strict=True)]


class Dropping(Teller):
    """Sets branches to zero: all of a sum, or one."""

    def __init__(self, which: int, one: int | None = None) -> None:
        super().__init__()
        self.which, self.one = which, one

    def operands(self, skip: Tensor, branches: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if self.number != self.which:
            return skip, branches
        return skip, [torch.zeros_like(b) if self.one in (None, j) else b for j, b in enumerate(branches)]


class Choosing(Teller):
    """Lets the gradient through one operand of each sum: 0 for the skip, j for the j-th branch."""

    def __init__(self, choice: Mapping[int, int]) -> None:
        super().__init__()
        self.choice = choice

    def operands(self, skip: Tensor, branches: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        chosen = self.choice.get(self.number)
        if chosen is None:
            return skip, branches
        first, *others = (o if j == chosen else o.detach() for j, o in enumerate((skip, *branches)))
        return first, others


def sums(plan: Plan) -> list[tuple[Block, int, bool]]:
    """Each sum in order of execution: the block, how many branches it has, and whether it is a top-level one."""

    def inside(block: Block, top: bool) -> list[tuple[Block, int, bool]]:
        below = [found for b in block.branches for nested in b.blocks for found in inside(nested, False)]
        return [*below, (block, len(block.branches), top)]

    return [found for block in plan.order for found in inside(block, True)]


def choices(plan: Plan) -> list[dict[int, int]]:
    """Every path through the top-level blocks, as {sum: operand}."""
    counted = {k: count for k, (_, count, top) in enumerate(sums(plan)) if top}
    options = [range(count + 1) for count in counted.values()]
    return [dict(zip(counted, picked, strict=True)) for picked in product(*options)]

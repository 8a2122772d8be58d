"""A plan of a random residual network, as plain data: what to build, and so what must be found.

    network   blocks, one after the other, then a head
    block     after(skip(fork) + Σ_j branch_j(fork)), the sum in one of many spellings
    branch    steps, one after the other; one of them may be blocks again, nested ones

The plan alone says how many blocks and branches there are. Where the definition leaves room, a plan stays out of it:
every branch has a non-linear step beside a projection, a sum inside a branch is never its end, and so on.
"""

import random
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from generated.spellings import SPELLINGS
from generated.steps import ENDS, STEPS

T = TypeVar("T")


class Source(Protocol):
    """Numbers that someone else chooses: `fuzz._source` has hypothesis, `Seeded` a seed."""

    def number(self, low: int, high: int) -> int: ...


class Seeded:
    """Choices by a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def number(self, low: int, high: int) -> int:
        return self.random.randint(low, high)


@dataclass(frozen=True)
class Branch:
    """Steps by name; `blocks`, if any, run after the first. `again`: by the modules of an equal, earlier branch."""

    steps: tuple[str, ...]
    blocks: tuple["Block", ...] = ()
    again: bool = False


@dataclass(frozen=True)
class Block:
    """One block: its skip, its branches, how their sum is spelled, what the trunk does afterwards."""

    skip: str
    branches: tuple[Branch, ...]
    spelling: str
    after: str

    @property
    def depth(self) -> int:
        return 1 + max((block.depth for branch in self.branches for block in branch.blocks), default=0)

    @property
    def found(self) -> tuple[int, int]:
        """What a trace must say of it: branches, and blocks inside, at any depth."""
        return len(self.branches), sum(1 + b.found[1] for branch in self.branches for b in branch.blocks)


@dataclass(frozen=True)
class Plan:
    """A network and the circumstances under which it is traced."""

    blocks: tuple[Block, ...]
    width: int = 4
    positions: int = 0
    batch: int = 2
    dtype: str = "float64"
    training: bool = False
    seed: int = 0
    again: tuple[int, ...] = field(default=())

    @property
    def order(self) -> tuple[Block, ...]:
        """The blocks in the order of execution; those of `again` run a second time, the very modules, at the end."""
        return (*self.blocks, *(self.blocks[k] for k in self.again))


SKIPS = ("identity", "identity", "identity", "projection", "normed")
AFTER = ("nothing", "nothing", "nothing", "relu", "tanh", "norm", "relu_", "linear", "reshaped")
DTYPES = ("float64", "float64", "float64", "float32", "bfloat16")


def draw(source: Source, spellings: tuple[str, ...] = SPELLINGS, steps: tuple[str, ...] = STEPS) -> Plan:
    """A random plan; `spellings` and `steps` narrow what it is made of."""
    positions = pick(source, (0, 0, 3))
    batch = pick(source, (1, 2, 2, 3))
    training = not source.number(0, 3)
    # What a batch norm measures in training needs more than one example; over positions there is none.
    without = {"batch norm"} if positions or (training and batch == 1) else set()
    without |= set() if positions else {"attention", "fused attention"}
    usable = tuple(step for step in steps if step not in without)
    drawer = _Drawer(source, spellings, usable or ("linear",))
    blocks = tuple(drawer.block(0) for _ in range(source.number(1, 4)))
    return Plan(
        blocks=blocks,
        width=pick(source, (4, 4, 6)),
        positions=positions,
        batch=batch,
        dtype=pick(source, DTYPES),
        training=training,
        seed=source.number(0, 10_000),
        again=(source.number(0, len(blocks) - 1),) if not source.number(0, 3) else (),
    )


class _Drawer:
    def __init__(self, source: Source, spellings: tuple[str, ...], steps: tuple[str, ...]) -> None:
        self.source, self.spellings, self.steps = source, spellings, steps
        self.drawn: list[tuple[int, Branch]] = []

    def block(self, depth: int) -> Block:
        skip = pick(self.source, SKIPS)
        count = pick(self.source, (1, 1, 1, 2, 3)) if depth == 0 else 1
        branches = tuple(self.branch(depth, skip) for _ in range(count))
        after = pick(self.source, AFTER) if depth == 0 else "nothing"
        return Block(skip, branches, pick(self.source, self.spellings), after)

    def branch(self, depth: int, skip: str) -> Branch:
        # Beside a projection an affine branch is none, and neither is one of maxima.
        ends = tuple(end for end in ENDS if skip != "projection" or "relu" not in end)
        earlier = [b for d, b in self.drawn if d == depth and " ".join(b.steps).endswith(ends)]
        if earlier and not self.source.number(0, 4):
            return replace(pick(self.source, tuple(earlier)), again=True)
        middle = [pick(self.source, self.steps) for _ in range(self.source.number(0, 2))]
        nests = depth < 2 and not self.source.number(0, 3 + 3 * depth)
        inside = self.source.number(1, 2) if nests else 0
        blocks = tuple(self.block(depth + 1) for _ in range(inside))
        branch = Branch(("linear", *middle, *pick(self.source, ends).split()), blocks)
        self.drawn.append((depth, branch))
        return branch


def pick(source: Source, values: tuple[T, ...]) -> T:
    return values[source.number(0, len(values) - 1)]

"""Networks told as plain code that says itself which tensors are branches: what every oracle here is read off.

    def story(net, mark, x):
        for k, f in enumerate(net.f):
            gate = torch.sigmoid(net.gate[k](x))
            x = (1 - mark.gate(f"f{k}", gate)) * x + mark(f"f{k}", gate * f(x))
        return net.head(x)

`mark(name, value)` is a branch of the block of that name, and `mark.gate(name, value)` what a skip is multiplied by. A
traced network leaves both as they are. An oracle scales their cotangents by t, drops a branch, or lets no gradient
through: a path that passes a branch, or the gate of a skip, has one step more. Where a network spells its sums in
another way its `reference` is a second story, on the same modules, that is the same function and has the marks.
"""

import copy
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from oracles.structure import Marks

Story = Callable[..., Any]


class Verbs:
    """The network as it is."""

    def __call__(self, name: str, branch: Tensor) -> Tensor:
        return branch

    def gate(self, name: str, gate: Tensor) -> Tensor:
        return gate

    def skip(self, name: str, skip: Tensor) -> Tensor:
        return skip

    def held(self, weights: Tensor) -> Tensor:
        """Weights outside of branches and skips, a head's, which the frozen form holds."""
        return weights


PLAIN = Verbs()


class Marked(Verbs):
    """Scales the cotangents of the counted blocks' branches by t, and those of what their skips are multiplied by."""

    def __init__(self, counted: Collection[str]) -> None:
        self.counted, self.marks = counted, Marks()
        self.met: list[str] = []

    def __call__(self, name: str, branch: Tensor) -> Tensor:
        self.met.append(name)
        return self.marks(branch) if name in self.counted else branch

    def gate(self, name: str, gate: Tensor) -> Tensor:
        return self.marks(gate) if name in self.counted else gate


class Dropped(Verbs):
    """A block's branches are zero, or one of them, by its place; the gates of its skip stay."""

    def __init__(self, name: str, which: int | None = None) -> None:
        self.name, self.which, self.met = name, which, 0

    def __call__(self, name: str, branch: Tensor) -> Tensor:
        if name != self.name:
            return branch
        self.met += 1
        return torch.zeros_like(branch) if self.which in (None, self.met - 1) else branch


class Skipless(Verbs):
    """A block's skip is zero, and its branches stay."""

    def __init__(self, name: str) -> None:
        self.name = name

    def skip(self, name: str, skip: Tensor) -> Tensor:
        return torch.zeros_like(skip) if name == self.name else skip


class Cut(Verbs):
    """No gradient passes the branches of some blocks, nor what their skips are multiplied by."""

    def __init__(self, blocks: Collection[str]) -> None:
        self.blocks = blocks

    def __call__(self, name: str, branch: Tensor) -> Tensor:
        return branch.detach() if name in self.blocks else branch

    def gate(self, name: str, gate: Tensor) -> Tensor:
        return gate.detach() if name in self.blocks else gate


class Skips(Cut):
    """The frozen path that passes no branch: what a head holds is cut as well."""

    def held(self, weights: Tensor) -> Tensor:
        return weights.detach()


class Told(nn.Module):
    """A story with the modules that it uses; what is traced has no marks."""

    def __init__(self, story: Story, reference: Story | None = None, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.story, self.reference = story, reference or story
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor, *more: Tensor) -> Any:
        return self.story(self, PLAIN, x, *more)

    def told(self, verbs: Verbs, *inputs: Tensor) -> Tensor:
        """The reference's first output."""
        return first(self.reference(self, verbs, *inputs))


def first(output: Any) -> Tensor:
    """Of several outputs the first: the one that analyses explain."""
    return output if isinstance(output, Tensor) else next(iter(output))


def of_ones(network: Told) -> Told:
    """The same story where every module is the identity and every parameter of its own one.

    A path of it has the gradient 1: the gradient of a length, summed over the input, is how many paths have it.
    """
    ones = copy.deepcopy(network)
    for name, part in network.named_children():
        several = isinstance(part, nn.ModuleList)
        setattr(ones, name, nn.ModuleList(nn.Identity() for _ in part) if several else nn.Identity())
    for parameter in ones.parameters(recurse=False):
        parameter.data.fill_(1)
    return ones

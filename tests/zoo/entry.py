"""One model of the zoo: how it is made, what it is called with, and what is known about it by other means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Known:
    """How many residual additions a model has, counted by other means than `trace`.

    Attributes:
        blocks: top-level blocks; 0 for a network without residual connections.
        projections: those whose skip is a projection.
        branches: the branches of all top-level blocks together; None stands for one each.
        nested: blocks inside branches.
        kinds: how many blocks there are of other kinds, by kind of skip and join; None where they were not counted.
        how: by which means they were counted.
    """

    blocks: int
    projections: int = 0
    branches: int | None = None
    nested: int = 0
    kinds: Mapping[str, int] | None = None
    how: str = ""

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Blocks, projections, branches, nested: what a trace must give."""
        return self.blocks, self.projections, self.blocks if self.branches is None else self.branches, self.nested


@dataclass(frozen=True)
class Made:
    """A model in eval mode with inputs."""

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A line of the zoo.

    Attributes:
        name: of the model, unique.
        library: "timm", "transformers", or another one's name.
        kind: the group it is listed under.
        make: builds it.
        known: what a trace must find; None where nothing is known but form(x) = model(x).
    """

    name: str
    library: str
    kind: str
    make: Callable[[], Made]
    known: Known | None


def lively(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """The model in eval mode, with values where it starts from zero, or next to it.

    A branch that ends in a zero head, a zero gain or a layer scale of 1e-6 adds nothing: its absence could not be seen.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point() and tensor.numel() and tensor.abs().max() <= 1e-4:
                tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers of a generator of their own."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def integers(*shape: int, low: int = 3, high: int = 60, seed: int = 0) -> Tensor:
    """Token ids that are no special ones."""
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))

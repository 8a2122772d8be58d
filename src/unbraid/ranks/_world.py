"""Which of how many processes this one is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist

__all__ = ["Share", "World", "alone", "world"]

T = TypeVar("T")
_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


@dataclass(frozen=True)
class Share:
    """One of several equal shares of the work on one item.

    Attributes:
        index: which, counted from 0.
        of: how many there are.
    """

    index: int
    of: int

    def among(self, items: Sequence[T]) -> Sequence[T]:
        """Every so many of the items, from the share's own on: neighbours, which often cost alike, go to all."""
        return items[self.index :: self.of]


@dataclass(frozen=True)
class World:
    """The processes that work together.

    Attributes:
        rank: the number of this one, counted from 0.
        size: how many there are.
    """

    rank: int
    size: int

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def task(self, rank: int, items: int) -> tuple[int, Share]:
        """What a rank does of so many items, at most one per rank: which item, and which share of the work on it.

        Of 2 items 5 ranks take 0, 1, 0, 1, 0: ranks 0, 2 and 4 are the three shares of the first.
        """
        item = rank % items
        return item, Share(rank // items, len(range(item, self.size, items)))


def world() -> World:
    """This process among those that torch.distributed has connected; one of one where there is no other."""
    if _ALONE.get() or not (dist.is_available() and dist.is_initialized()):
        return World(0, 1)
    return World(dist.get_rank(), dist.get_world_size())


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process works by itself, whoever else is connected: for what not all ranks do."""
    before = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(before)

"""Sums over ranks."""

import torch.distributed as dist
from torch import Tensor

from unbraid.ranks._gather import connected
from unbraid.ranks._world import world

__all__ = ["connected", "total"]


def total(value: Tensor) -> Tensor:
    """The sum over all ranks of a tensor of float64 or whole numbers, on its own device; every rank must call it."""
    if world().size == 1:
        return value
    summed = value.clone()
    with connected():
        dist.all_reduce(summed)
    return summed

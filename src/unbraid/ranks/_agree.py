"""Whether all ranks were given the same."""

import zlib
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from unbraid.ranks._first import together
from unbraid.ranks._gather import Message, gather
from unbraid.ranks._world import world

__all__ = ["agreed", "fingerprint"]

_LOOKED_AT = 4096  # numbers of each tensor, spread evenly over it, that tell one from another


def agreed(value: Callable[[], object]) -> None:
    """Compare a value over all ranks, by its checksum.

    Raises:
        ValueError: it differs, as where each rank has a model of its own.
    """
    if world().size == 1:
        return
    mine = together(lambda: fingerprint(value()))
    for rank, message in enumerate(gather(Message({"mark": mine}))):
        if rank == 0:
            first = message.facts["mark"]
        elif message.facts["mark"] != first:
            raise ValueError(
                "ranks: all share the work of one call, and what one of them was given, a model, variants or settings, "
                f"is not what rank 0 was given: rank {rank}. Give them the same, or work inside `with ranks.alone():` "
                "(unbraid.ranks)."
            )


def fingerprint(item: object) -> int:
    """A checksum by which two things are told apart: shapes, types and some of the numbers; no names of objects."""
    checksum = 0
    for leaf in pytree.tree_leaves(item):
        if isinstance(leaf, Tensor):
            checksum = zlib.crc32(f"{list(leaf.shape)} {leaf.dtype}".encode() + _some(leaf), checksum)
        elif isinstance(leaf, str | int | float | None):
            checksum = zlib.crc32(repr(leaf).encode(), checksum)
    return checksum


def _some(tensor: Tensor) -> bytes:
    flat = tensor.detach().reshape(-1)
    chosen = flat[:: max(1, flat.numel() // _LOOKED_AT)].contiguous()
    return chosen.view(torch.uint8).cpu().numpy().tobytes()

"""The processes that torchrun starts, connected."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from unbraid.ranks._gather import connected
from unbraid.ranks._meeting import meet

__all__ = ["group", "launched", "many"]

_TOLD = frozenset({"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})


def many() -> bool:
    """Whether this process was started as one of several, by torchrun or in its way."""
    return os.environ.keys() >= _TOLD and int(os.environ["WORLD_SIZE"]) > 1


def launched() -> bool:
    """Whether torchrun started this process, and may start it again after a failure."""
    return dist.is_torchelastic_launched()


@contextmanager
def group() -> Iterator[None]:
    """Inside, the processes started together are connected; nothing happens where they are already, or there is one.

    Each takes the GPU of its LOCAL_RANK, and gradients go by NCCL. Numbers on the CPU go by Gloo, and so do all where
    there are fewer GPUs than processes on a machine.
    """
    if not many() or dist.is_initialized():
        yield
        return
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % gpus)
    enough = 0 < int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= gpus
    backend = "cpu:gloo,cuda:nccl" if enough else "gloo"
    with connected():
        store, rank, size = next(rendezvous("env://"))
        dist.init_process_group(backend, store=meet(store, rank, size), rank=rank, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()

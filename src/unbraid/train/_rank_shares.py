"""One network trained by several ranks, each on its part of every batch."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from unbraid.data import Dataset
from unbraid.ranks import world
from unbraid.train._batch_norm import over_all_ranks
from unbraid.train._recipe import Recipe

__all__ = ["check_shares", "part", "shared", "weight"]


def check_shares(data: Dataset, recipe: Recipe) -> None:
    """Every rank must have an example of every batch.

    Raises:
        ValueError: the smallest batch, which is the last of a pass where they do not come out even, holds too few.
    """
    examples = len(data.train_labels)
    smallest = examples % recipe.batch_size or min(recipe.batch_size, examples)
    if smallest < world().size:
        raise ValueError(
            f"fit: {world().size} ranks share out each batch, and the smallest of {examples:,} examples in batches of "
            f"{recipe.batch_size} holds {smallest}. Choose another batch size, or fewer ranks."
        )


def part(batch: Tensor) -> Tensor:
    """This rank's rows of a batch; the parts differ by one row at most."""
    here = world()
    return batch if here.size == 1 else batch.tensor_split(here.size)[here.rank]


def weight(mine: int, batch: int) -> float:
    """By what the mean loss of `mine` examples counts, so that the mean over ranks is the mean over the batch."""
    return world().size * mine / batch


@contextmanager
def shared(network: nn.Module, data: Dataset) -> Iterator[nn.Module]:
    """The network as all ranks train it: gradients are averaged, and batch norms see the whole batch.

    Its parameters and buffers stay where they are, under the same names.
    """
    if world().size == 1:
        yield network
        return
    unused = _unused(network, data)
    with over_all_ranks(network):
        yield DistributedDataParallel(network, find_unused_parameters=unused)


def _unused(network: nn.Module, data: Dataset) -> bool:
    """Whether a parameter has no part in the output; its gradient is then not waited for."""
    network.eval()
    loss = cross_entropy(network(data.train_inputs[:1]), data.train_labels[:1])
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return any(gradient is None for gradient in torch.autograd.grad(loss, learned, allow_unused=True))

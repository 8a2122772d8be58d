"""Batch norm over the whole batch, of which each rank has a part.

While ranks train, batch norms are swapped for ones that add sums over ranks: a batch split in four would otherwise
train another network than the same batch split in two.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["over_all_ranks"]


@contextmanager
def over_all_ranks(network: nn.Module) -> Iterator[None]:
    """Inside, every batch norm takes mean and variance over all ranks, so that a batch means the same on any number.

    DistributedDataParallel alone would norm each part by itself, another network on each number of ranks; and torch's
    SyncBatchNorm, which does not, runs on GPUs only.
    """
    places: list[tuple[nn.Module, str, _BatchNorm]] = []
    for parent in network.modules():
        children = parent.named_children()
        places += [(parent, name, child) for name, child in children if isinstance(child, _BatchNorm)]
    for parent, name, child in places:
        setattr(parent, name, _WholeBatchNorm(child))
    try:
        yield
    finally:
        for parent, name, child in places:
            child.train(getattr(parent, name).training)
            setattr(parent, name, child)


@final
class _WholeBatchNorm(_BatchNorm):
    """y = γ (x − μ) / √(σ² + ε) + β with μ and σ² over the batches of all ranks (Ioffe and Szegedy 2015).

    Args:
        norm: whose parameters and buffers it shares.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, affine=False, track_running_stats=False)
        self.affine, self.track_running_stats = norm.affine, norm.track_running_stats
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self._norm = [norm]  # in a list, so that it is no module of this one and its names stay as they are
        self.training = norm.training

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch's name
        """As torch's in eval mode; in training mode over the whole batch."""
        (norm,) = self._norm
        norm.training = self.training
        if not (self.training or self.running_mean is None):
            return norm(input)
        along = [dimension for dimension in range(input.ndim) if dimension != 1]
        rows = input.transpose(0, 1).flatten(1).double() if input.ndim > 2 else input.t().double()
        count = _total(torch.tensor(float(rows.shape[1]), dtype=torch.float64, device=input.device))
        mean = _over_all(rows.sum(1)) / count
        variance = _over_all((rows - mean[:, None]).square().sum(1)) / count
        if self.training and self.track_running_stats:
            self._follow(mean.detach(), variance.detach(), count)
        shape = [-1 if dimension not in along else 1 for dimension in range(input.ndim)]
        scale = (variance + self.eps).rsqrt()
        scaled = ((input - mean.to(input.dtype).view(shape)) * scale.to(input.dtype).view(shape)).to(input.dtype)
        return scaled if self.weight is None else scaled * self.weight.view(shape) + self.bias.view(shape)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002, torch's name
        (norm,) = self._norm
        norm._check_input_dim(input)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics, the variance without bias, as torch does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        moved = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        unbiased = variance * count / (count - 1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), moved)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), moved)


class _Total(torch.autograd.Function):
    """Σ over ranks; each rank's loss depends on the sum, so the gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _total(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _total(gradient)


def _over_all(value: Tensor) -> Tensor:
    summed: Tensor = _Total.apply(value)  # type: ignore[no-untyped-call]
    return summed


def _total(value: Tensor) -> Tensor:
    summed = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    return summed

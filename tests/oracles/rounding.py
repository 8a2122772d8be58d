"""What rounding alone may do to a computation: the same in float64, but each operator's results rounded up or down.

Two machines that compute a network in bfloat16 add and round in different orders, and no bar that ignores the network
fits them all: rounding grows with depth, and where large terms cancel. How far runs that round at random lie apart
says what two right answers may differ by, and it is the same number on every machine.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from networks import F64


class Rounded(TorchDispatchMode):
    """Float64 numbers that an operator makes become one of the two next ones of a coarser type, by chance.

    What the coarser type holds stays: an operator that picks or moves numbers changes none.
    """

    def __init__(self, dtype: torch.dtype, seed: int) -> None:
        super().__init__()
        self.step = torch.finfo(dtype).eps / 2  # between mantissas in [½, 1), as frexp gives them
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns):
            return result  # a view
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.dtype is F64:
                mantissa, exponent = torch.frexp(tensor)
                chance = torch.rand(tensor.shape, generator=self.generator, dtype=F64)
                tensor.copy_(torch.ldexp(mantissa.div_(self.step).add_(chance).floor_().mul_(self.step), exponent))
        return result


def spread(run: Callable[[], Tensor], dtype: torch.dtype, draws: int = 4) -> float:
    """The farthest that a run in float64 comes to lie from itself, in the largest norm, when it rounds like `dtype`."""
    exact, farthest = run().detach(), 0.0
    for seed in range(draws):
        with Rounded(dtype, seed):
            rounded = run().detach()
        farthest = max(farthest, float((rounded - exact).abs().max()))
    return farthest

"""How a tensor lies in memory: its strides, and where it begins between two multiples of 64 bytes.

Both decide which kernel a product takes, and kernels round differently: a transposed weight, one with channels last, or
one in the middle of a mapped file gives other last digits than its copy in order. A saved form notes what is not plain,
so that the form loaded computes the same bits.
"""

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

_ALIGNED = 64  # bytes, to multiples of which torch allocates
_LOOSE = 4  # times the tensor's own bytes that its strides may reach over


@final
@dataclass(frozen=True)
class Layout:
    """How a tensor lies in memory.

    Attributes:
        strides: in elements; None where the tensor is contiguous.
        shift: bytes from the last multiple of 64 to where it begins.
    """

    strides: tuple[int, ...] | None = None
    shift: int = 0

    @staticmethod
    def of(tensor: Tensor) -> "Layout":
        """How a tensor lies; plain where it is on no CPU, or where a copy could not lie so without waste."""
        if tensor.device.type != "cpu" or tensor.layout is not torch.strided or not tensor.numel():
            return PLAIN
        strides = None if tensor.stride() == _contiguous(tuple(tensor.shape)) else tensor.stride()
        layout = Layout(strides, tensor.data_ptr() % _ALIGNED)
        return layout if layout._fits(tuple(tensor.shape), tensor.dtype) else PLAIN

    @staticmethod
    def parsed(facts: Any) -> "Layout":
        """What `facts` said.

        Raises:
            ValueError: it is no layout.
        """
        strides, shift = (facts.get("strides"), facts.get("shift", 0)) if isinstance(facts, dict) else (0, 0)
        if isinstance(strides, list) and all(type(stride) is int and 0 <= stride < 2**63 for stride in strides):
            strides = tuple(strides)
        if not isinstance(strides, tuple | None) or type(shift) is not int or not 0 <= shift < _ALIGNED:
            raise ValueError(f"a layout has strides and a shift; this is {str(facts)[:80]}")
        return Layout(strides, shift)

    def facts(self) -> dict[str, Any]:
        """The layout as JSON."""
        return {"strides": None if self.strides is None else list(self.strides), "shift": self.shift}

    def applied(self, tensor: Tensor) -> Tensor:
        """The same numbers in this layout; as they are where it is plain, or does not fit the tensor."""
        if self == PLAIN or not tensor.numel() or not self._fits(tuple(tensor.shape), tensor.dtype):
            return tensor
        strides = tensor.stride() if self.strides is None else self.strides
        size = tensor.element_size()
        raw = torch.empty(_reach(tuple(tensor.shape), strides) * size + _ALIGNED, dtype=torch.uint8, device="cpu")
        begin = (self.shift - raw.data_ptr()) % _ALIGNED
        flat = raw[begin : len(raw) - (len(raw) - begin) % size].view(tensor.dtype)
        return flat.as_strided(tensor.shape, strides).copy_(tensor)

    def _fits(self, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
        """Whether elements have places of their own, and not far from one another."""
        if self.shift % dtype.itemsize:
            return False
        if self.strides is None:
            return True
        if len(self.strides) != len(shape):
            return False
        reach = 1
        for stride, size in sorted(zip(self.strides, shape, strict=True)):
            if size > 1 and stride < reach:
                return False
            reach += (size - 1) * stride
        return reach <= _LOOSE * math.prod(shape)


PLAIN = Layout()


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return torch.empty(shape, device="meta").stride()


def _reach(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))

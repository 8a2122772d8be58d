"""How single things are put back: a tensor, a generator of numbers, what belongs to the process."""

import random
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

Undo: TypeAlias = Callable[[], object]


def tensor_undo(tensor: Tensor) -> Undo:
    """Puts back which memory a tensor shows and how, its type, its gradient, and whether it asks for one."""
    place, shown, needs = _place(tensor), tensor.detach(), tensor.requires_grad
    gradient = tensor.grad if tensor.is_leaf else None

    def undo() -> None:
        if _place(tensor) != place:
            tensor.data = shown
        if tensor.is_leaf and tensor.grad is not gradient:
            tensor.grad = gradient
        if tensor.is_leaf and tensor.requires_grad is not needs:
            tensor.requires_grad_(needs)

    return undo


def versions_undo(tensors: list[Tensor]) -> Undo:
    """Puts back torch's counters of writes, by which a backward pass sees that what it needs was overwritten."""
    counted = [tensor for tensor in tensors if not tensor.is_inference()]
    before = [tensor._version for tensor in counted]

    def undo() -> None:
        moved = [(t, version) for t, version in zip(counted, before, strict=True) if t._version != version]
        if moved:
            torch._C._autograd._unsafe_set_version_counter(tuple(t for t, _ in moved), tuple(v for _, v in moved))

    return undo


def generator_undo(thing: Any) -> Undo | None:
    """Puts back a generator of random numbers, or an array of numpy's; None for anything else."""
    if isinstance(thing, random.Random):
        return _unless_same(thing.getstate, thing.setstate)
    if isinstance(thing, torch.Generator):
        state = thing.get_state()
        return lambda: None if torch.equal(thing.get_state(), state) else thing.set_state(state)
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(thing, numpy.random.Generator):
        return _unless_same(lambda: thing.bit_generator.state, lambda old: setattr(thing.bit_generator, "state", old))
    if isinstance(thing, numpy.random.RandomState):
        return _unless_same(lambda: thing.get_state(legacy=False), thing.set_state)
    if isinstance(thing, numpy.ndarray) and thing.flags.writeable and not thing.dtype.hasobject:
        array = thing.copy()
        return lambda: None if thing.tobytes() == array.tobytes() else numpy.copyto(thing, array)
    return None


def process_undo() -> Undo:
    """Puts back torch's default type, whether gradients are computed, and the moved generators of Python and numpy."""
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    others = [generator_undo(random._inst)]
    if (numpy := sys.modules.get("numpy")) is not None:
        others.append(generator_undo(numpy.random.mtrand._rand))

    def undo() -> None:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)
        for other in others:
            if other is not None:
                other()

    return undo


def _unless_same(read: Callable[[], Any], write: Callable[[Any], object]) -> Undo:
    old = read()
    return lambda: None if repr(read()) == repr(old) else write(old)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    if tensor.layout is not torch.strided:
        return (tensor.shape, tensor.dtype, tensor.layout)
    memory = tensor.untyped_storage()._cdata
    return (memory, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)

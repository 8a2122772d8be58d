"""The tensors that segments name: all in memory, or each read when the turn of its segment comes.

Streaming is a kind of state, not a mode of analyses. `Streamed` is a mapping that reads a tensor whenever it is asked
for one; since parameters are arguments of segments, a run reads them at their turn. On the way back autograd would keep
them: `rereading` lets it note names instead, and reads again. No analysis knows; it must only not copy the state whole.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, final, runtime_checkable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

State: TypeAlias = Mapping[str, Tensor]


@runtime_checkable
class Place(Protocol):
    """Where a tensor lies outside memory."""

    @property
    def meta_tensor(self) -> Tensor:
        """A tensor of its sizes and type on the meta device."""
        ...

    def read(self) -> Tensor:
        """The tensor, on the CPU."""
        ...


@final
@dataclass(frozen=True, eq=False)
class Streamed(Mapping[str, Tensor]):
    """A state whose tensors are read each time a segment asks for them, and let go of when it has run.

    Attributes:
        places: where each tensor lies.
        kept: tensors that are in memory: what no file holds, and what a run adds.
        device: where they are wanted.
        types: the type in which a tensor is handed out, by its own; where there is none, as it is.
    """

    places: Mapping[str, Place]
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    device: torch.device = torch.device("cpu")  # noqa: RUF009  (immutable)
    types: Mapping[torch.dtype, torch.dtype] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        if name in self.kept:
            return self.kept[name]
        tensor = self.places[name].read()
        return tensor.to(self.device, self.types.get(tensor.dtype, tensor.dtype))

    def __iter__(self) -> Iterator[str]:
        return iter({**self.places, **self.kept})

    def __len__(self) -> int:
        return len({**self.places, **self.kept})

    def meta_tensor(self, name: str) -> Tensor:
        """A tensor of the same sizes and type, without reading it."""
        if name in self.kept:
            return self.kept[name]
        like = self.places[name].meta_tensor
        return like.to(dtype=self.types.get(like.dtype, like.dtype))


def storage_key(state: State, name: str) -> object:
    """Where a tensor lies: equal for names that share one, such as tied weights of one shape."""
    if isinstance(state, Streamed) and name not in state.kept:
        return state.places[name]
    return state[name].data_ptr(), tuple(state[name].shape)


def meta_tensor(state: State, name: str) -> Tensor:
    """A tensor of the state, or, where that is not in memory, one of its sizes and type on the meta device."""
    return state.meta_tensor(name) if isinstance(state, Streamed) else state[name]


def detached(state: State) -> State:
    """The state without gradients; what is read from a file has none."""
    if isinstance(state, Streamed):
        return replace(state, kept={name: tensor.detach() for name, tensor in state.kept.items()})
    return {name: tensor.detach() for name, tensor in state.items()}


def joined(state: State, more: Mapping[str, Tensor]) -> State:
    """The state with further tensors, or others, that are in memory."""
    if isinstance(state, Streamed):
        return replace(state, kept={**state.kept, **more})
    return {**state, **more}


def moved(state: State, device: torch.device) -> State:
    """The state on a device."""
    if isinstance(state, Streamed):
        kept = {name: tensor.to(device) for name, tensor in state.kept.items()}
        return replace(state, kept=kept, device=device)
    return {name: tensor.to(device) for name, tensor in state.items()}


def retyped(state: State, types: Mapping[torch.dtype, torch.dtype]) -> State:
    """The state with its tensors in other types."""

    def changed(tensor: Tensor) -> Tensor:
        return tensor.to(types.get(tensor.dtype, tensor.dtype))

    if isinstance(state, Streamed):
        before = {own: types.get(to, to) for own, to in state.types.items()}
        kept = {name: changed(tensor) for name, tensor in state.kept.items()}
        return replace(state, kept=kept, types={**types, **before})
    return {name: changed(tensor) for name, tensor in state.items()}


def device_of(state: State) -> torch.device:
    """Where the state's tensors are used."""
    if isinstance(state, Streamed):
        return state.device
    return next((tensor.device for tensor in state.values()), torch.device("cpu"))


def resident(state: State) -> int:
    """Bytes of the state that are in memory at one time: all, or what is kept and the largest that is read."""
    if isinstance(state, Streamed):
        largest = max((_bytes(state.meta_tensor(name)) for name in state.places.keys() - state.kept.keys()), default=0)
        return largest + sum(map(_bytes, state.kept.values()))
    return sum(map(_bytes, state.values()))


def rereading(state: State, read: Mapping[str, Tensor]) -> AbstractContextManager[Any]:
    """While a segment runs, let autograd note the names of parameters that were read, not the parameters.

    They are read again when a cotangent is pulled back: otherwise the run's graph would hold the whole model.

    Args:
        state: where they were read.
        read: the segment's parameters by name.
    """
    if not isinstance(state, Streamed) or not torch.is_grad_enabled():
        return nullcontext()
    own = {name: tensor for name, tensor in read.items() if name not in state.kept and tensor.numel()}
    names = {tensor.untyped_storage().data_ptr(): name for name, tensor in own.items()}
    return saved_tensors_hooks(*_noting(state, own, names))


def _noting(
    state: Streamed, own: Mapping[str, Tensor], names: Mapping[int, str]
) -> tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]:
    types = {name: tensor.dtype for name, tensor in own.items()}

    def pack(tensor: Tensor) -> Any:
        name = names.get(tensor.untyped_storage().data_ptr())
        if name is None or tensor.dtype is not types[name]:
            return tensor.detach()  # with its history, a result that an operator saves would keep itself alive
        return name, tensor.size(), tensor.stride(), tensor.storage_offset()

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        name, size, stride, offset = packed
        return state[name].as_strided(size, stride, offset)

    return pack, unpack


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()

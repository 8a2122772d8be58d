"""Run a model's operators aside: what they write can be put back, what they draw comes from generators of their own.

Putting torch's generator back after a run would rewind it under every other thread that draws from it, and copies of
all parameters, in case that one is written, would double a large model. So a mode sees each operator of this thread:

    aten.add_(h, b)                 writes into no tensor that is watched: it runs
    aten.add_(running_mean, b)      writes into one: its memory is copied first
    aten.bernoulli_(mask, 0.5)      draws: it is handed a private generator
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from threading import get_ident
from typing import Any

import torch
from torch import Generator, Tensor, UntypedStorage
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

# Batch norm writes them in train mode, which its schema does not say.
_STATISTICS = {"running_mean", "running_var"}


class Draws:
    """Private generators, one for each device, that begin where torch's own are."""

    def __init__(self) -> None:
        self._begun: dict[torch.device, Tensor] = {}
        self._now: dict[torch.device, Generator] = {}

    def of(self, device: torch.device) -> Generator:
        """The generator of a device."""
        if device not in self._now:
            if device not in self._begun:
                self._begun[device] = _global_state(device)
            self._now[device] = Generator(device)
            self._now[device].set_state(self._begun[device])
        return self._now[device]

    def again(self) -> "Draws":
        """Generators that draw the same numbers once more."""
        draws = Draws()
        draws._begun = self._begun  # shared: a device that only the second run draws on begins where the first would
        return draws

    @classmethod
    def seeded(cls, seed: int) -> "Draws":
        """Generators that begin at a seed."""
        draws = cls()
        draws._begun = _Seeded(seed)
        return draws


class _Seeded(dict[torch.device, Tensor]):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def __contains__(self, device: object) -> bool:
        return True

    def __missing__(self, device: torch.device) -> Tensor:
        self[device] = Generator(device).manual_seed(self._seed).get_state()
        return self[device]


class Aside(TorchDispatchMode):  # type: ignore[no-untyped-call]  # the class's own hook has no types
    """The mode; `watched` are tensors whose memory is copied before it is written."""

    supports_higher_order_operators = True

    def __init__(self, watched: Iterable[Tensor] = (), draws: Draws | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watched: dict[int, UntypedStorage] = {}
        self.watch(watched)
        self._written: dict[int, UntypedStorage] = {}
        self._draws = draws
        self.everything: Callable[[], None] = lambda: None  # puts back what no operator writes

    def watch(self, tensors: Iterable[Tensor]) -> None:
        """Copy the memory of these, too, before it is written."""
        self._watched |= {storage._cdata: storage for storage in map(storage_of, tensors) if storage is not None}

    @contextmanager
    def drawing(self, draws: Draws) -> Iterator[None]:
        """Run under the mode; torch's functions that seed and read the CPU's generator mean the private one as well."""
        self._draws = draws
        with seeding(draws), self:
            yield

    def save(self, tensor: Tensor) -> None:
        """Copy the memory that a tensor shows, if it is watched and was not copied before."""
        storage = storage_of(tensor)
        if storage is not None and storage._cdata in self._watched and storage._cdata not in self._written:
            self._written[storage._cdata] = storage.clone()  # type: ignore[no-untyped-call]

    def own(self, tensor: Tensor) -> Tensor:
        """The tensor, or a copy where it shows memory that will be put back."""
        storage = storage_of(tensor)
        return tensor.clone() if storage is not None and storage._cdata in self._watched else tensor

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled parts of a model run compiled: torch would refuse the mode otherwise."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        given = dict(kwargs or {})
        if not isinstance(func, torch._ops.OpOverload):
            return func(*args, **given)
        for tensor in _written(func, args, given) if self._watched else ():
            self.save(tensor)
        if self._draws is None or not _draws(func):
            return func(*args, **given)
        device = _device(args, given)
        if device.type == "meta":
            return func(*args, **given)
        twin = _with_generator(func)
        if twin is None:
            with _lent(self._draws.of(device), device):
                return func(*args, **given)
        place = _place_of_generator(twin)
        if given.get("generator") is not None or (place < len(args) and args[place] is not None):
            return func(*args, **given)
        return twin(*args[:place], **{**given, "generator": self._draws.of(device)})

    def put_back(self) -> None:
        """Undo what was written into watched memory."""
        for key, copy in self._written.items():
            storage = self._watched[key]
            if storage.nbytes() != copy.nbytes():
                storage.resize_(copy.nbytes())
            if not torch.equal(_bytes(storage), _bytes(copy)):  # other threads may be reading it
                storage.copy_(copy)
        self._written.clear()


@contextmanager
def drawing(draws: Draws) -> Iterator[None]:
    """Inside, what this thread draws comes from private generators, and torch's own stay where they are."""
    with Aside().drawing(draws):
        yield


@contextmanager
def seeding(draws: Draws) -> Iterator[None]:
    """Inside, torch.manual_seed and its like mean the private generator, in this thread alone."""
    random: Any = torch.random  # where its functions look the generator up
    thread, own = get_ident(), draws.of(torch.device("cpu"))
    usual = random.default_generator

    class PerThread:
        def __getattr__(self, name: str) -> Any:
            return getattr(own if get_ident() == thread else usual, name)

    random.default_generator = PerThread()
    try:
        yield
    finally:
        random.default_generator = usual


def storage_of(tensor: Tensor) -> UntypedStorage | None:
    """The memory of a tensor; None where it has none of its own (sparse ones, or wrappers of others)."""
    if tensor.layout is not torch.strided or tensor.is_meta:
        return None
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


def _bytes(storage: UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


@cache
def _writes(func: torch._ops.OpOverload) -> tuple[tuple[int, str], ...]:
    """Place and name of each argument that an operator writes."""
    arguments = enumerate(func._schema.arguments)
    return tuple(
        (place, a.name)
        for place, a in arguments
        if (a.alias_info is not None and a.alias_info.is_write) or a.name in _STATISTICS
    )


def _written(func: torch._ops.OpOverload, args: Any, kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    for place, name in _writes(func):
        value = args[place] if place < len(args) else kwargs.get(name)
        yield from (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor))


@cache
def _draws(func: torch._ops.OpOverload) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags or any(a.name == "generator" for a in func._schema.arguments)


@cache
def _with_generator(func: torch._ops.OpOverload) -> Any:
    """The operator itself, or its overload, that takes a generator; None where there is none."""
    wanted = {a.name for a in func._schema.arguments} | {"generator"}
    packet = func.overloadpacket
    for name in (func._overloadname, *packet.overloads()):
        overload = getattr(packet, name)
        if {a.name for a in overload._schema.arguments} == wanted and _alike(overload, func):
            return overload
    return None


def _alike(overload: torch._ops.OpOverload, func: torch._ops.OpOverload) -> bool:
    return _types(overload) == _types(func)


def _types(overload: torch._ops.OpOverload) -> dict[str, str]:
    """The types of an operator's arguments but the generator."""
    return {a.name: str(a.type) for a in overload._schema.arguments if a.name != "generator"}


@cache
def _place_of_generator(func: torch._ops.OpOverload) -> int:
    """Among the arguments, where they are given by position."""
    return [a.name for a in func._schema.arguments].index("generator")


def _device(args: Any, kwargs: Mapping[str, Any]) -> torch.device:
    if (device := kwargs.get("device")) is not None:
        return _with_number(torch.device(device))
    tensors = [leaf for leaf in pytree.tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor)]
    return _with_number(tensors[0].device) if tensors else torch.device("cpu")


def _with_number(device: torch.device) -> torch.device:
    if device.type in {"cpu", "meta"} or device.index is not None:
        return torch.device(device.type) if device.type in {"cpu", "meta"} else device
    return torch.device(device.type, torch.get_device_module(device.type).current_device())


def _global_state(device: torch.device) -> Tensor:
    if device.type == "cpu":
        return torch.get_rng_state()
    state: Tensor = torch.get_device_module(device.type).get_rng_state(device)
    return state


@contextmanager
def _lent(own: Generator, device: torch.device) -> Iterator[None]:
    """For an operator that takes no generator: torch's own goes on from the private state, and is put back at once."""
    if device.type == "cpu":
        usual: Any = torch.default_generator
        get, put = usual.get_state, usual.set_state
    else:
        module = torch.get_device_module(device.type)
        get, put = (lambda: module.get_rng_state(device)), (lambda state: module.set_rng_state(state, device))
    before = get()
    put(own.get_state())
    try:
        yield
    finally:
        own.set_state(get())
        put(before)

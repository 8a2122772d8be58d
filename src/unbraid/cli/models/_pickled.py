"""What the pickle of a state dict says, found out without unpickling it.

A pickle is a program for a machine with a stack. Even what `torch.load(weights_only=True)` allows takes any memory: 20
bytes ask for bytearray(10**10), and a tensor may reach over more than its storage has, which torch then makes larger.
So the program is gone through here first, with notes in the place of objects: a state dict needs 31 of the 68 opcodes
and five functions, and of each storage and tensor the note has the size.
"""

import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

__all__ = ["MoreThanTensorsError", "Pickled", "Storage", "described"]

_MOST_OPCODES = 20_000_000  # about 40 for each tensor
_TYPES = {
    "torch.storage UntypedStorage": 1,
    **dict.fromkeys(("torch ByteStorage", "torch CharStorage", "torch BoolStorage"), 1),
    **dict.fromkeys(("torch ShortStorage", "torch HalfStorage", "torch BFloat16Storage"), 2),
    **dict.fromkeys(("torch IntStorage", "torch FloatStorage"), 4),
    **dict.fromkeys(("torch LongStorage", "torch DoubleStorage", "torch ComplexFloatStorage"), 8),
    "torch ComplexDoubleStorage": 16,
}
_DTYPES = {f"torch float8_{kind}": 1 for kind in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e8m0fnu")} | {
    "torch uint16": 2,
    "torch uint32": 4,
    "torch uint64": 8,
}
_PLAIN = {"BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "LONG1"}
_CONSTANTS = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True}


class MoreThanTensorsError(Exception):
    """The pickle asks for something that no state dict of ordinary tensors needs."""


@dataclass(frozen=True)
class Storage:
    """The numbers of one or more tensors, in a place of their own.

    Attributes:
        key: its name in the file.
        itemsize: bytes of a number.
        numel: how many numbers it has.
    """

    key: str
    itemsize: int
    numel: int

    @property
    def nbytes(self) -> int:
        """Its bytes in the file, and in memory."""
        return self.itemsize * self.numel


@dataclass(frozen=True)
class Pickled:
    """What a pickle makes.

    Attributes:
        value: a tree of dicts, lists, tuples and plain values, with notes for tensors.
        storages: by their names.
        length: bytes that the pickle takes.
    """

    value: Any
    storages: Mapping[str, Storage]
    length: int


def described(data: bytes) -> Pickled:
    """Go through a pickle, up to its end, without making any object but dicts, lists and plain values.

    Raises:
        MoreThanTensorsError: it asks for more than tensors, or for a tensor that is larger than its storage.
        Exception: whatever a damaged pickle brings `pickletools` to.
    """
    machine, stream = _Machine(), io.BytesIO(data)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count > _MOST_OPCODES:
            raise MoreThanTensorsError(f"more than {_MOST_OPCODES:,} opcodes")
        machine.step(opcode.name, argument)
    (value,) = machine.stack
    return Pickled(value, machine.storages, stream.tell())


@dataclass(frozen=True)
class _Global:
    name: str


@final
@dataclass
class _Machine:
    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, Storage] = field(default_factory=dict)

    def step(self, name: str, argument: Any) -> None:
        if name in _PLAIN:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "STOP"):
            raise MoreThanTensorsError(f"the opcode {name}")

    def above_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def tuple(self, count: int | None) -> None:
        items = self.above_mark() if count is None else [self.stack.pop() for _ in range(count)][::-1]
        self.stack.append(tuple(items))

    def put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def append(self, items: list[Any]) -> None:
        _of(list, self.stack[-1]).extend(items)

    def set(self, items: list[Any]) -> None:
        into = _of(dict, self.stack[-1])
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other keys may be tuples of tuples of one tuple, whose hash takes for ever.
            into[_of((str, int, bytes), key)] = value

    def build(self, _: Any) -> None:
        """Attributes of an ordered dict: of a state dict, the versions of its modules."""
        if _of(dict, self.stack.pop()).keys() - {"_metadata"}:  # "items" or "keys" would hide its methods
            raise MoreThanTensorsError("a dict with attributes")
        _of(dict, self.stack[-1])

    def reduce(self, _: Any) -> None:
        arguments, function = _of(tuple, self.stack.pop()), _of(_Global, self.stack.pop())
        if function.name not in _FUNCTIONS:
            raise MoreThanTensorsError(function.name.replace(" ", "."))
        self.stack.append(_FUNCTIONS[function.name](*arguments))

    def persistent(self, _: Any) -> None:
        word, kind, key, location, numel, *view = _of(tuple, self.stack.pop())
        kind, key, numel = _of(_Global, kind), str(_of((str, int), key)), _of(int, numel)
        if word not in ("storage", b"storage") or kind.name not in _TYPES or numel < 0 or any(view):
            raise MoreThanTensorsError(f"a {str(word)[:40]} of {kind.name}")
        _of((str, bytes), location)
        storage = Storage(key, _TYPES[kind.name], numel)
        if self.storages.setdefault(key, storage) != storage:
            raise MoreThanTensorsError(f"two storages with the name {key[:40]!r}")
        self.stack.append(storage)


def _of(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise MoreThanTensorsError(f"a {type(value).__name__} where a state dict has none")
    return value


@dataclass(frozen=True)
class _Tensor:
    """The note for a tensor."""


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> _Tensor:
    """Of the type of its storage; `more` is whether it wants gradients, its hooks, and further attributes."""
    return _view(storage, _of(Storage, storage).itemsize, (offset, size, stride), more)


def _typed(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *more: Any) -> _Tensor:
    """Of a type that no storage has a name for."""
    name = _of(_Global, dtype).name
    if name not in _DTYPES:
        raise MoreThanTensorsError(f"a tensor of {name[:40]!r}")
    return _view(storage, _DTYPES[name], (offset, size, stride), (grad, hooks, *more))


def _view(storage: Any, itemsize: int, place: tuple[Any, Any, Any], more: tuple[Any, ...]) -> _Tensor:
    offset, size, stride = _of(int, place[0]), _of(tuple, place[1]), _of(tuple, place[2])
    if any(not (isinstance(one, bool) or one is None or one == {}) for one in more):
        raise MoreThanTensorsError("a tensor with attributes")
    if min(_of(int, number) for number in (offset, *size, *stride)) < 0 or len(size) != len(stride):
        raise MoreThanTensorsError("a tensor of negative sizes")
    reach = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else 0
    if reach * itemsize > _of(Storage, storage).nbytes:
        raise MoreThanTensorsError(f"a tensor over {reach:,} numbers of a storage of {storage.nbytes:,} bytes")
    return _Tensor()


def _parameter(tensor: Any, *_: Any) -> _Tensor:
    parameter: _Tensor = _of(_Tensor, tensor)
    return parameter


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "collections OrderedDict": dict,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _typed,
    "torch._utils _rebuild_parameter": _parameter,
}
_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "GLOBAL": lambda machine, name: machine.stack.append(_Global(name)),
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
    "MARK": _Machine.mark,
    "TUPLE": lambda machine, _: machine.tuple(None),
    "EMPTY_TUPLE": lambda machine, _: machine.tuple(0),
    "TUPLE1": lambda machine, _: machine.tuple(1),
    "TUPLE2": lambda machine, _: machine.tuple(2),
    "TUPLE3": lambda machine, _: machine.tuple(3),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.above_mark()),
    "SETITEM": lambda machine, _: machine.set([machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set(machine.above_mark()),
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
    "LONG_BINGET": lambda machine, key: machine.stack.append(machine.memo[key]),
}

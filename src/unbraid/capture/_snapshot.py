"""All that a model holds, as it is now, so that it can be so again.

A module's state is more than parameters and buffers: a table made at the first call, a list that a forward appends to,
a flag in a configuration, a cache in a closure, a default argument, a class, or a global of a file. A walk notes all
that the model's code reaches by attributes, items, cells and names: references, not copies, so that it costs little.
Tensors are noted with their place, gradient and version; what is written into their memory is `_side_run`'s concern.

Names are followed through the files that define a forward of the model, and one step into others: further on they lead
to whole libraries. Objects of torch and of Python's library are taken for constants, but for containers, modules, and
generators of numbers. Iterators and files stay where a run has left them.
"""

import functools
import operator
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from types import CellType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from unbraid.capture._undo import Undo, generator_undo, tensor_undo

_ABSENT: Any = object()
_CONSTANTS = (type(None), bool, int, float, complex, str, bytes, CodeType, torch.dtype, torch.device, torch.Size)
_LIBRARIES = sys.stdlib_module_names | {"torch", "numpy", "unbraid"}
_OF_EACH_CLASS = {"__dict__", "__weakref__"}
# Methods that Python calls without their name in any code.
_UNNAMED = {"forward", *"__call__ __getitem__ __setitem__ __getattr__ __iter__ __len__ __contains__ __enter__".split()}


class Held:
    """What some roots hold.

    Attributes:
        tensors: every tensor among it.
    """

    def __init__(self, roots: Iterable[Any]) -> None:
        self.tensors: list[Tensor] = []
        self._undo: list[Undo] = []
        self._seen: dict[int, Any] = {}  # holds what it names, so that no number comes to mean another thing
        self._bound: set[tuple[int, str]] = set()
        self._classes: list[type] = []
        self._names = set(_UNNAMED)
        self._files: set[str] = set()
        self._todo = list(roots)
        while self._todo:
            self._note(self._todo.pop())
            # Code noted later may name methods that were passed by.
            self._todo = self._todo or self._methods()

    def put_back(self) -> None:
        """Make all of it what it was."""
        for undo in self._undo:
            undo()

    def _note(self, thing: Any) -> None:
        if isinstance(thing, _CONSTANTS) or id(thing) in self._seen:
            return
        self._seen[id(thing)] = thing
        if isinstance(thing, type):
            self._class(thing)
        elif isinstance(thing, FunctionType):
            self._function(thing)
        else:
            self._contents(thing)
            self._attributes(thing)

    def _contents(self, thing: Any) -> None:
        """What a thing holds by its kind."""
        for kind, look in _LOOK:
            if isinstance(thing, kind):
                look(self, thing)
                return
        if (undo := generator_undo(thing)) is not None:
            self._undo.append(undo)

    def _mapping(self, thing: dict[Any, Any]) -> None:
        kind: type[dict[Any, Any]] = OrderedDict if isinstance(thing, OrderedDict) else dict

        def write(items: list[Any]) -> None:
            kind.clear(thing)
            half = len(items) // 2
            for key, value in zip(items[:half], items[half:], strict=True):
                kind.__setitem__(thing, key, value)

        self._container(lambda: [*kind.keys(thing), *kind.values(thing)], write)

    def _list(self, thing: list[Any]) -> None:
        self._container(lambda: list(list.__iter__(thing)), lambda old: list.__setitem__(thing, slice(None), old))

    def _set(self, thing: set[Any]) -> None:
        self._container(lambda: list(set.__iter__(thing)), lambda old: (set.clear(thing), set.update(thing, old)))

    def _deque(self, thing: deque[Any]) -> None:
        self._container(lambda: list(deque.__iter__(thing)), lambda old: (deque.clear(thing), deque.extend(thing, old)))

    def _container(self, read: Callable[[], list[Any]], write: Callable[[list[Any]], object]) -> None:
        """Items are read and written by the methods of the built-in kind, not by those of a class of the user's."""
        old = read()
        self._todo += old

        def undo() -> None:
            now = read()
            if len(now) != len(old) or not all(map(operator.is_, now, old)):
                write(old)

        self._undo.append(undo)

    def _bytes(self, thing: bytearray) -> None:
        old = bytes(thing)
        self._undo.append(lambda: thing.__setitem__(slice(None), old))

    def _cell(self, cell: CellType) -> None:
        def read() -> Any:
            try:
                return cell.cell_contents
            except ValueError:
                return _ABSENT

        self._binding(read, lambda old: setattr(cell, "cell_contents", old), lambda: delattr(cell, "cell_contents"))

    def _cached(self, thing: Any) -> None:
        """Of functools.lru_cache: what a run has added cannot be told from the rest, so all of it goes."""
        misses = thing.cache_info().misses
        self._undo.append(lambda: None if thing.cache_info().misses == misses else thing.cache_clear())
        self._todo.append(thing.__wrapped__)

    def _tensor(self, tensor: Tensor) -> None:
        self.tensors.append(tensor)
        self._todo += (vars(tensor), tensor.grad if tensor.is_leaf else None)
        self._undo.append(tensor_undo(tensor))

    def _attributes(self, thing: Any) -> None:
        """Of an instance: its dictionary, its slots, and its class."""
        kind = type(thing)
        if not (_of_the_user(kind) or isinstance(thing, nn.Module | SimpleNamespace)):
            return
        self._note(getattr(thing, "__dict__", None))
        if isinstance(thing, nn.Module):
            self._files.add(type(thing).forward.__module__)
        for base in kind.__mro__:
            self._note(base)
            for slot in vars(base).values() if "__slots__" in vars(base) else ():
                if isinstance(slot, MemberDescriptorType):
                    self._slot(slot, thing)

    def _slot(self, slot: MemberDescriptorType, thing: Any) -> None:
        def read() -> Any:
            try:
                return slot.__get__(thing)
            except AttributeError:
                return _ABSENT

        self._binding(read, lambda old: slot.__set__(thing, old), lambda: slot.__delete__(thing))

    def _binding(self, read: Callable[[], Any], write: Callable[[Any], object], remove: Callable[[], object]) -> None:
        old = read()
        self._todo.append(old)

        def undo() -> None:
            if read() is not old:
                remove() if old is _ABSENT else write(old)

        self._undo.append(undo)

    def _class(self, kind: type) -> None:
        if not _of_the_user(kind):
            return
        self._classes.append(kind)
        old = {name: value for name, value in vars(kind).items() if name not in _OF_EACH_CLASS}
        self._todo += (value for value in old.values() if not isinstance(value, FunctionType))

        def undo() -> None:
            now = dict(vars(kind))
            for name in now.keys() - old.keys() - _OF_EACH_CLASS:
                type.__delattr__(kind, name)
            for name, value in old.items():
                if now.get(name, _ABSENT) is not value:
                    type.__setattr__(kind, name, value)

        self._undo.append(undo)

    def _methods(self) -> list[FunctionType]:
        """The functions of classes whose names some code mentions."""
        own = chain.from_iterable(vars(kind).items() for kind in self._classes)
        named = [value for name, value in own if name in self._names]
        return [value for value in named if isinstance(value, FunctionType) and id(value) not in self._seen]

    def _function(self, function: FunctionType) -> None:
        if not _of_the_user(function):
            return
        self._todo += (function.__defaults__, function.__kwdefaults__, function.__closure__, vars(function))
        names = set(_names(function.__code__))
        own = function.__module__ in self._files
        self._names |= names if own else set()
        self._scope(function.__globals__, names, further=own)

    def _scope(self, scope: dict[str, Any], names: set[str], *, further: bool) -> None:
        """What code reaches by these names in its file; and further through functions, classes and files it names."""
        for name in names:
            if (id(scope), name) in self._bound:
                continue
            value = scope.get(name, _ABSENT)
            if isinstance(value, ModuleType):
                if further and _of_the_user(value):
                    self._bound.add((id(scope), name))
                    self._scope(vars(value), names, further=False)
            elif further or not isinstance(value, type | FunctionType):
                self._bound.add((id(scope), name))
                read, write = partial(scope.get, name, _ABSENT), partial(scope.__setitem__, name)
                self._binding(read, write, partial(scope.pop, name))


# In this order: a mapping may be of several kinds.
_LOOK: tuple[tuple[Any, Callable[[Held, Any], None]], ...] = (
    (Tensor, Held._tensor),
    (dict, Held._mapping),
    (list, Held._list),
    (set, Held._set),
    (deque, Held._deque),
    (bytearray, Held._bytes),
    (CellType, Held._cell),
    (functools._lru_cache_wrapper, Held._cached),
    (tuple | frozenset, lambda held, thing: held._todo.extend(thing)),
    (MethodType, lambda held, thing: held._todo.extend((thing.__self__, thing.__func__))),
    (partial, lambda held, thing: held._todo.extend((thing.func, thing.args, thing.keywords))),
    (property, lambda held, thing: held._todo.extend((thing.fget, thing.fset))),
    (functools.cached_property, lambda held, thing: held._todo.append(thing.func)),
    (staticmethod | classmethod, lambda held, thing: held._todo.append(thing.__func__)),
)


def _names(code: CodeType) -> Iterator[str]:
    """The names of globals and attributes in some code, functions inside it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _of_the_user(thing: Any) -> bool:
    """Whether a class, function or module is neither torch's, nor Python's own, nor ours."""
    name = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None)
    return isinstance(name, str) and name.partition(".")[0] not in _LIBRARIES

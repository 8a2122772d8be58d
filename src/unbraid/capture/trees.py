"""What a model is given and returns, as leaves and a structure: any class that holds tensors, not only torch's own.

torch knows lists, tuples, dicts, named tuples and classes that somebody registered. Here a dataclass, a mapping of a
library's own kind, a key-value cache, any object whose attributes hold tensors is taken apart as well, and put together
again as what it was. Nothing of an object is called: it is made empty and its attributes are set.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

# Put together from these, and compared; a leaf has none.
_LEAF: "Structure"


@dataclass(frozen=True)
class Structure:
    """How a tree is put together from its leaves.

    Attributes:
        kind: the class of the tree; None for a leaf.
        names: of each child; keys, names of attributes, or numbers.
        context: what else its class needs.
        children: the structures of the children.
    """

    kind: type | None = None
    names: tuple[Any, ...] = ()
    context: Any = None
    children: tuple["Structure", ...] = ()

    def filled(self, leaves: Iterator[Any], above: tuple[Any, ...] = ()) -> Any:
        """The tree with these leaves; `above` holds the trees in which this one stands, outermost first."""
        if self.kind is None:
            return next(leaves)
        if self.kind is Again:
            return above[self.context]
        if self.kind not in pytree.SUPPORTED_NODES and not issubclass(self.kind, tuple):
            empty = _empty(self.kind)  # before its parts, of which one may be the object itself
            parts = [child.filled(leaves, (*above, empty)) for child in self.children]
            return _with_parts(empty, dict(zip(self.names, parts, strict=True)))
        parts = [child.filled(leaves, (*above, None)) for child in self.children]
        if self.kind in pytree.SUPPORTED_NODES:
            return pytree.SUPPORTED_NODES[self.kind].unflatten_fn(parts, self.context)
        return _tuple(self.kind, parts)


class Again:
    """Stands for an object that holds itself, at the number of trees around it."""


_LEAF = Structure()


class Leaf:
    """What stands in a tree for a tensor, or for a number that depends on sizes."""


class Sizes(tuple[Any, ...]):
    """A torch.Size in the making: it may hold nothing but numbers."""

    __slots__ = ()


# They are never taken apart.
_PLAIN = (Tensor, Leaf, set, frozenset, str, bytes, torch.SymInt, torch.SymFloat, torch.SymBool)


def flatten(tree: Any) -> tuple[list[Any], Structure]:
    """The leaves of a tree, and what puts them together."""
    leaves: list[Any] = []
    return leaves, _structure(tree, leaves, ())


def leaves_of(tree: Any) -> list[Any]:
    """The leaves alone."""
    return flatten(tree)[0]


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors among the leaves."""
    return [leaf for leaf in leaves_of(tree) if isinstance(leaf, Tensor)]


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with each leaf replaced."""
    leaves, structure = flatten(tree)
    return structure.filled(iter([function(leaf) for leaf in leaves]))


def mapped_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """The tree with each tensor replaced."""
    return mapped(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, tree)


def titled(tree: Any, title: str) -> list[str]:
    """A name for each leaf: "pair_0", "more_gain" for what stands in an argument."""

    def names(structure: Structure, title: str) -> Iterator[str]:
        if structure.kind is None:
            yield title
        for name, child in zip(structure.names, structure.children, strict=True):
            yield from names(child, f"{title}_{name[1] if isinstance(name, tuple) else name}")

    return list(names(flatten(tree)[1], title))


def parts_of(tree: Any) -> dict[Any, Any] | None:
    """The parts of a tree by their keys, numbers, or attributes' names; None for a leaf."""
    taken = _children(tree)
    return None if taken is None else {(n[1] if isinstance(n, tuple) else n): part for n, part in taken[1].items()}


def holds_tensors(tree: Any) -> bool:
    """Whether a tensor lies somewhere in an object."""
    return _holds_tensors(tree, set())


def _structure(tree: Any, leaves: list[Any], above: tuple[int, ...]) -> Structure:
    if id(tree) in above:
        return Structure(Again, context=above.index(id(tree)))
    taken = _children(tree)
    if taken is None:
        leaves.append(tree)
        return _LEAF
    kind, parts, context = taken
    children = tuple(_structure(part, leaves, (*above, id(tree))) for part in parts.values())
    return Structure(kind, tuple(parts), context, children)


def _children(tree: Any) -> tuple[type, dict[Any, Any], Any] | None:
    """The class, the parts by name, and what else the class needs; None for a leaf."""
    kind = type(tree)
    if isinstance(tree, _PLAIN):
        return None
    if isinstance(tree, torch.Size):
        return Sizes, dict(enumerate(tree)), None
    if kind in pytree.SUPPORTED_NODES:
        parts, context = pytree.SUPPORTED_NODES[kind].flatten_fn(tree)
        names = tree.keys() if isinstance(tree, dict) else range(len(parts))
        return kind, dict(zip(names, parts, strict=True)), context
    if isinstance(tree, tuple):
        return kind, dict(enumerate(tree)), None
    if isinstance(tree, list | dict) or _holds_tensors(tree, set()):
        return kind, _parts(tree), None
    return None


def _parts(tree: Any) -> dict[Any, Any]:
    """Attributes, and the items of a list or a mapping; each is told from the others by what stands before its name."""
    parts: dict[Any, Any] = {}
    if isinstance(tree, dict):
        parts |= {("item", key): value for key, value in tree.items()}
    if isinstance(tree, list):
        parts |= {("item", number): value for number, value in enumerate(tree)}
    return parts | {name: value for name, value in _attributes(tree).items() if not _an_item(tree, name)}


def _an_item(tree: Any, name: str) -> bool:
    """Whether an attribute is also an item, as in the outputs of transformers."""
    return isinstance(tree, dict) and name in tree and tree[name] is _attributes(tree)[name]


def _attributes(tree: Any) -> dict[str, Any]:
    slots = set[str]().union(*map(_slots, type(tree).__mro__))
    return {**{name: getattr(tree, name) for name in slots if hasattr(tree, name)}, **getattr(tree, "__dict__", {})}


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in names if name not in {"__dict__", "__weakref__"})


def _holds_tensors(tree: Any, seen: set[int]) -> bool:
    """Whether an object is worth taking apart: a tensor, or what stands for one, lies somewhere in it."""
    if isinstance(tree, Tensor | Leaf):
        return True
    if isinstance(tree, nn.Module | type | torch.SymInt | torch.SymFloat | torch.SymBool) or callable(tree):
        return False
    if id(tree) in seen:
        return False
    seen.add(id(tree))
    if isinstance(tree, list | tuple | set | frozenset):
        return any(_holds_tensors(part, seen) for part in tree)
    if isinstance(tree, dict):
        return any(_holds_tensors(part, seen) for part in [*tree.values(), *_attributes(tree).values()])
    return any(_holds_tensors(part, seen) for part in _attributes(tree).values())


def _tuple(kind: type, parts: list[Any]) -> Any:
    if kind is Sizes:
        whole = all(isinstance(part, int | torch.SymInt) for part in parts)
        return torch.Size(parts) if whole else Sizes(parts)
    return kind._make(parts) if hasattr(kind, "_make") else tuple.__new__(kind, parts)


def _empty(kind: type) -> Any:
    """An object of a class, made without asking the class."""
    new: Any = kind.__new__ if issubclass(kind, dict | list) else object.__new__
    return new(kind)


def _with_parts(whole: Any, parts: dict[Any, Any]) -> Any:
    items = {name[1]: part for name, part in parts.items() if isinstance(name, tuple)}
    attributes = {name: part for name, part in parts.items() if isinstance(name, str)}
    if isinstance(whole, dict):
        base = OrderedDict if isinstance(whole, OrderedDict) else dict
        for key, part in items.items():
            base.__setitem__(whole, key, part)
        fields = getattr(type(whole), "__dataclass_fields__", {})
        attributes |= {key: part for key, part in items.items() if key in fields}
    elif isinstance(whole, list):
        list.extend(whole, items.values())
    for name, part in attributes.items():
        object.__setattr__(whole, name, part)
    return whole

"""Which elements of a tensor others are made of: found by moving their numbers instead of the elements.

    h = x[:, 0] + f(x.view(-1, 2, 3)[:, :, 1:])       x: [2, 6]

    x             0  1  2  3  4  5  /  6  7  8  9 10 11
    x[:, 0]       0                 /  6
    what f reads     1  2     4  5  /     7  8    10 11       none in common: nothing that is added was computed from it

Slices, selections, splits, chunks and constant indices come out alike, in whatever order and by whatever name. Sizes
are those of the trace.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import SymInt, Tensor, fx
from torch.fx.node import map_arg

from unbraid.discover._dataflow import Dataflow
from unbraid.graph.operators import Frozen, operator_of, random
from unbraid.graph.questions import is_float, shape_only

_LARGEST = 2**24  # elements to number; a larger tensor counts as read whole


Constant: TypeAlias = Callable[[str], Tensor | None]


def no_constant(name: str) -> None:
    """Nothing is known of any placeholder."""


class Elements:
    """The numbers of one tensor's elements, and where they go.

    Args:
        flow: the data flow of the graph.
        whole: the tensor.
        constant: the value of a placeholder that holds a constant, by its name; None for others.
    """

    def __init__(self, flow: Dataflow, whole: fx.Node, constant: Constant) -> None:
        self._flow = flow
        self.whole = whole
        self._constant_of = constant
        self._moved: dict[fx.Node, Any] = {}

    def same(self, one: fx.Node, other: fx.Node) -> bool:
        """Whether two nodes hold the same elements of the tensor in the same places: by another name, or detached."""
        one, other = unmoved(one), unmoved(other)
        if one is other or not (self._reached(one) and self._reached(other)):
            return one is other
        first, second = self._numbers(one), self._numbers(other)
        return isinstance(first, Tensor) and isinstance(second, Tensor) and torch.equal(first, second)

    def apart(self, one: fx.Node, other: fx.Node) -> bool:
        """Whether two nodes are computed from different elements of the tensor."""
        first, second = self._read_for(one), self._read_for(other)
        if first is None or second is None:
            return False
        numbers, others = (([*map(self._known, nodes)]) for nodes in (first, second))
        if not numbers or not others or not all(isinstance(known, Tensor) for known in numbers + others):
            return False
        taken = torch.zeros(1 + max(int(known.max()) for known in numbers + others), dtype=torch.bool, device="cpu")
        for known in numbers:
            taken[known.flatten()] = True
        return not any(bool(taken[known.flatten()].any()) for known in others)

    def numbers(self, node: fx.Node) -> Any:
        """The numbers of what a node has of the tensor's elements; None where it has others, or none that are known."""
        node = unmoved(node)
        return self._numbers(node) if self._reached(node) else None

    def written(self, node: fx.Node, source: int, numbers: Tensor) -> Tensor | None:
        """The tensor's numbers after an operator that writes others, those at `source` of its arguments, into them."""
        whole = self._numbers(self.whole)
        if not isinstance(whole, Tensor):
            return None
        try:
            others = enumerate(node.args[1:], start=1)
            rest = [numbers if place == source else map_arg(argument, self._constant) for place, argument in others]
            result = _called(node, [whole, *rest])
        except Exception:  # an index that is not known, or sizes that do not fit
            return None
        return result if isinstance(result, Tensor) else None

    def _read_for(self, end: fx.Node) -> list[fx.Node] | None:
        """The tensors, only moved, that enter what is computed on the ways to a node; None where one holds them all."""
        below = {*self._flow.region(self.whole, end)}
        read, picked = list[fx.Node](), {self.whole: not isinstance(self.whole.meta.get("val"), Tensor)}
        stack = [self.whole]
        while stack:
            node = stack.pop()
            readers = [user for user in node.users if user in below]
            moving = [user for user in readers if self._moves(user)]
            if node is end or len(moving) < len(readers):
                if not picked[node]:
                    return None
                read.append(node)
            for user in moving:
                if user not in picked:
                    picked[user] = picked[node] or not shape_only(user)
                    stack.append(user)
        return read

    def _moves(self, node: fx.Node) -> bool:
        """Whether an operator moves elements alone, and those of its first operand."""
        return node.op == "call_function" and bool(node.args) and (operator_of(node).takes or shape_only(node))

    def _reached(self, node: fx.Node) -> bool:
        """Whether a node's elements were moved here from the tensor."""
        while node is not self.whole and self._moves(node) and isinstance(node.args[0], fx.Node):
            node = node.args[0]
        return node is self.whole

    def _known(self, node: fx.Node) -> Any:
        """The numbers of a node's elements, or of those among which it picks by what is not known."""
        while node is not self.whole and self._numbers(node) is None and isinstance(node.args[0], fx.Node):
            node = node.args[0]
        return self._numbers(node)

    def _numbers(self, node: fx.Node) -> Any:
        """The numbers of a node's elements, several tensors for several results; None where they are not known."""
        if node not in self._moved:
            self._moved[node] = self._numbered() if node is self.whole else self._move(node)
        return self._moved[node]

    def _numbered(self) -> Any:
        value = self.whole.meta.get("val")
        results = [[*map(traced_size, tensor.shape)] for tensor in _tensors(value)]
        counts = [math.prod(sizes) for sizes in results]
        if not 0 < sum(counts) <= _LARGEST:
            return None
        numbers = torch.split(torch.arange(sum(counts), device="cpu"), counts)
        parts = [part.view(sizes) for part, sizes in zip(numbers, results, strict=True)]
        return parts[0] if isinstance(value, Tensor) else parts

    def _move(self, node: fx.Node) -> Any:
        source = node.args[0] if self._moves(node) else None
        numbers = self._numbers(source) if isinstance(source, fx.Node) and self._comes(source) else None
        if numbers is None or _copies(node):
            return numbers
        try:
            return _called(node, [numbers, *map_arg(list(node.args[1:]), self._constant)])
        except Exception:  # an index that is not known, or an operator that takes no integers
            return None

    def _comes(self, node: fx.Node) -> bool:
        """Whether a node may come from the tensor; nothing else is asked for its numbers."""
        return node is self.whole or self._flow.order[node] > self._flow.order[self.whole]

    def _constant(self, node: fx.Node) -> Any:
        """The value of an index, a size or a count that is known beforehand."""
        value = node.meta.get("val")
        if isinstance(value, int | SymInt):
            return traced_size(value)
        if node.op == "placeholder" and (constant := self._constant_of(node.name)) is not None:
            return constant
        if node.op != "call_function" or is_float(node) or random(node):
            raise LookupError
        return _called(node, map_arg(list(node.args), self._constant))


def unmoved(node: fx.Node) -> fx.Node:
    """The node whose values these are, before they were copied, cast or detached."""
    while node.op == "call_function" and _copies(node):
        source = node.args[0]
        assert isinstance(source, fx.Node)
        node = source
    return node


def _copies(node: fx.Node) -> bool:
    """Whether a node hands on its operand: a cast, a copy, dropout in eval mode."""
    row = operator_of(node)
    return (row.copies or row.freeze is Frozen.DROPOUT) and shape_only(node)


def _called(node: fx.Node, args: list[Any]) -> Any:
    target: Any = node.target
    return target(*args, **{name: value for name, value in node.kwargs.items() if name not in ("device", "pin_memory")})


def _tensors(value: Any) -> list[Tensor]:
    several = value if isinstance(value, list | tuple) else [value]
    return [tensor for tensor in several if isinstance(tensor, Tensor)]


def traced_size(size: int | SymInt) -> int:
    """A size at the traced input; 0 where the input's values decide it."""
    if isinstance(size, int):
        return size
    return int(size.node.hint) if size.node.has_hint() else 0

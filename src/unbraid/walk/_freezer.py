from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from unbraid.errors import InexactError
from unbraid.graph import POINTWISE, name_of
from unbraid.walk._rules import HELD, MIXING, MOVING, RULES, SCALES

aten = torch.ops.aten


class Freezer:
    """Writes one segment anew as the affine map that equals it at the given input.

    Each node of the segment is either free of data, and copied; or affine in the data, and rewritten by its operator's
    rule; or a pointwise function φ of one affine node, the root, and written as φ(0) + gate·root only if something uses
    it linearly: so an activation spelled out in many operations is one activation.

    Args:
        code: the segment's code.
        values: the value of every node at the given input.
        carrying: the placeholders that carry data.
        title: how to name the segment in an error.
    """

    def __init__(self, code: fx.GraphModule, values: Mapping[fx.Node, Any], carrying: set[fx.Node], title: str) -> None:
        self.graph = fx.Graph()
        self.values = values
        self.title = title
        self.held: list[Tensor] = []
        self._written: dict[fx.Node, fx.Node] = {}
        self._data = set(carrying)
        self._roots: dict[fx.Node, fx.Node] = {}
        self._levels: dict[fx.Node, int] = {}
        self._constants: dict[int, fx.Node] = {}
        self._mine: set[fx.Node] = set()
        self._nodes = list(code.graph.nodes)
        for node in self._nodes:
            if node.op == "placeholder":
                self._written[node] = self.graph.placeholder(node.name)

    def run(self) -> tuple[fx.Graph, list[Tensor]]:
        """The affine graph, and the held tensors that follow its other placeholders in order."""
        for node in self._nodes:
            if node.op == "output":
                self.graph.output(map_arg(node.args[0], self.linear))
            elif node.op != "placeholder":
                self._visit(node)
        self.graph.eliminate_dead_code()
        return self.graph, self.held

    def _visit(self, node: fx.Node) -> None:
        name, data = name_of(node), self.data(node)
        if not data or not _has_data(self.values[node]):
            return
        if name in HELD:
            self._hold_result(node)
            return
        self._data.add(node)
        self._levels[node] = self._level(name, data)
        root = self._common_root(node, data)
        if root is not None:
            self._roots[node] = root
        elif name in RULES:
            self._written[node] = RULES[name](self, node)
        elif name in MOVING or name in MIXING:
            self._written[node] = self.copy(node)
        else:
            raise self.refusal(node)

    def _hold_result(self, node: fx.Node) -> None:
        """What is held altogether carries no data onward, except as a scale that is held beside what it scales."""
        self._levels[node] = 2

    def _level(self, name: str, data: list[fx.Node]) -> int:
        """0 after a mixing operation, 1 after a non-linearity, 2 for a norm's scale: the higher factor is held."""
        if name in SCALES:
            return 2
        before = max(self.level(node) for node in data)
        if name in MOVING or name in {"mul", "div", "where"}:
            return min((self.level(node) for node in data), default=0) if name in {"mul", "div"} else before
        if name in POINTWISE:
            return max(1, before)
        return 0

    def _common_root(self, node: fx.Node, data: list[fx.Node]) -> fx.Node | None:
        """The one node of which this is a function, element by element; None if there is no such node."""
        if name_of(node) not in POINTWISE or not isinstance(self.values[node], Tensor):
            return None
        roots = {self._roots.get(argument, argument) for argument in data}
        if len(roots) != 1:
            return None
        (root,) = roots
        value = self.values[root]
        return root if isinstance(value, Tensor) and value.shape == self.values[node].shape else None

    # What the rules use.

    def carries(self, argument: object) -> bool:
        """Whether an argument carries data."""
        return argument in self._data

    def data(self, node: fx.Node) -> list[fx.Node]:
        """The arguments that carry data."""
        return [argument for argument in node.all_input_nodes if argument in self._data]

    def level(self, argument: fx.Node) -> int:
        """How strongly a factor asks to be held."""
        return self._levels.get(argument, 0)

    def value(self, argument: Any) -> Any:
        """An argument's value at the given input."""
        return self.values[argument] if isinstance(argument, fx.Node) else argument

    def result(self, node: fx.Node) -> Any:
        """A node's own value at the given input."""
        return self.values[node]

    def linear(self, argument: fx.Node) -> fx.Node:
        """The affine node, or the constant one, that stands for an argument in the new graph."""
        if argument in self._mine:
            return argument
        if argument not in self._written:
            if argument in self._roots:
                self._written[argument] = self._gated(argument)
            elif argument in self._data or self.level(argument):
                self._written[argument] = self.hold(self.values[argument])
            else:
                self._written[argument] = self.copy(argument)
        return self._written[argument]

    def held_or_copied(self, argument: Any) -> Any:
        """An argument held at its value where it depends on data, such as a condition."""
        return self.hold(self.values[argument]) if isinstance(argument, fx.Node) else argument

    def hold(self, value: Tensor) -> fx.Node:
        """A constant of the frozen segment."""
        if id(value) not in self._constants:
            last = [n for n in self.graph.nodes if n.op == "placeholder"][-1]
            with self.graph.inserting_after(last):
                self._constants[id(value)] = self.graph.placeholder(f"held_{len(self.held)}")
            self.held.append(value)
        return self.remember(self._constants[id(value)])

    def remember(self, node: fx.Node) -> fx.Node:
        """Mark a node of the new graph, so that `linear` leaves it as it is."""
        self._mine.add(node)
        return node

    def call(self, target: Callable[..., Any], *args: Any) -> fx.Node:
        """An operator in the new graph."""
        return self.remember(self.graph.call_function(target, args))

    def copy(self, node: fx.Node, hold: frozenset[fx.Node] = frozenset()) -> fx.Node:
        """The same operator on the new arguments, some of them held at their values."""

        def argument(old: fx.Node) -> fx.Node:
            return self.hold(self.values[old]) if old in hold else self.linear(old)

        return self.remember(self.graph.node_copy(node, argument))

    def refusal(self, node: fx.Node) -> InexactError:
        """No rule makes this operator affine."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        module = stack[-1][0] if stack else self.title
        return InexactError(
            f"freeze: no rule makes the operator {node.target} affine, in {module or 'the model itself'!r}.\n"
            '  The gradient by path does not need one: gradient_spectrum, or linearize="jacobian".',
            where=f"{node.target} in {module}",
        )

    def _gated(self, node: fx.Node) -> fx.Node:
        """φ(z) = φ(0) + gate·z with gate (φ(z) − φ(0))/z; φ'(0) near z = 0; a constant if φ(0) is infinite."""
        root = self._roots[node]
        z, out = self.values[root], self.values[node]
        zero = torch.zeros_like(z).requires_grad_()
        with torch.enable_grad():
            at_zero = self._evaluate(node, root, zero)
            slope = torch.zeros_like(z)
            if at_zero.requires_grad:
                (slope,) = torch.autograd.grad(at_zero.sum(), zero, allow_unused=True)
                slope = torch.zeros_like(z) if slope is None else slope
        at_zero = at_zero.detach()
        if not bool(torch.isfinite(at_zero).all()):
            return self.hold(out)
        near = z.abs() < torch.finfo(z.dtype).eps ** 0.5
        safe = torch.where(near, torch.ones_like(z), z)
        gate = torch.where(near & torch.isfinite(slope), slope, (out - at_zero) / safe)
        gated = self.call(aten.mul.Tensor, self.hold(gate), self.linear(root))
        return self.call(aten.add.Tensor, gated, self.hold(at_zero)) if bool(at_zero.any()) else gated

    def _evaluate(self, node: fx.Node, root: fx.Node, at: Tensor) -> Tensor:
        """The pointwise function from root to node, at another value of the root."""
        known: dict[fx.Node, Any] = {root: at}

        def value(argument: fx.Node) -> Any:
            if argument not in known:
                inside = self._roots.get(argument) is root
                known[argument] = apply(argument) if inside else self.values[argument]
            return known[argument]

        def apply(inner: fx.Node) -> Any:
            return inner.target(*map_arg(inner.args, value), **map_arg(inner.kwargs, value))  # type: ignore[operator]

        result: Tensor = value(node)
        return result


def _has_data(value: Any) -> bool:
    """Whether a value is a floating-point or complex tensor, or holds one: sizes, masks and indices carry no data."""
    values = value if isinstance(value, list | tuple) else (value,)
    return any(isinstance(v, Tensor) and (v.dtype.is_floating_point or v.dtype.is_complex) for v in values)

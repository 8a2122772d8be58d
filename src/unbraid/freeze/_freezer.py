"""One segment written anew as the affine map that equals it at the given input.

relu(x W + b) · s, with W, b and s parameters:

    x W + b      affine, by the rule of the operator
    relu         pointwise: φ(0) + gate·(x W + b), gate computed from the recorded values and held
    · s          affine

A *root* is the affine node on which a pointwise function hangs, however many operators spell the function out; a
*level* is above 0 where a node has passed a non-linearity since its last mixing operation; by it products are split.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from unbraid.errors import InexactError
from unbraid.freeze._activations import evaluate, gate
from unbraid.freeze._recording import Recording, has_data, several
from unbraid.graph.operators import EITHER, Frozen, Kind, callee, foreign, operator_of, random
from unbraid.graph.questions import HELD, jointly_affine

aten = torch.ops.aten
_CASTS = (aten.to, aten._to_copy, aten.type_as)
# Linear, and yet no part of an activation's formula: each has its rule.
_ITSELF = (Frozen.DROPOUT, Frozen.CONJUGATE, Frozen.DETACH)
# Of those that do not mix these hand on what passed a non-linearity before.
_HANDS_ON = (Frozen.LINEAR, Frozen.CONJUGATE, Frozen.DROPOUT, Frozen.RESULT)


class Freezer:
    """Writes one segment anew as the affine map that equals it at the given input.

    Each node of the segment is either free of data, and copied; or computed from data but constant by the rules, and
    held; or affine in the data, and rewritten by its operator's rule; or a pointwise function φ of one affine node, the
    root, and written as φ(0) + gate·root only if something uses it linearly: so an activation spelled out in many
    operations is one activation. Numbers are part of its formula; with a tensor, such as a bias, a new root begins.

    Args:
        code: the segment's code.
        recording: a run of it at the given input.
        carrying: the placeholders that carry data, each with its level.
        constant: the placeholders that an earlier segment has made constant.
        title: how to name the segment in an error.
        rules: the function for each rule that the table of operators names.
    """

    def __init__(
        self,
        code: fx.GraphModule,
        recording: Recording,
        carrying: Mapping[fx.Node, int],
        constant: set[fx.Node],
        title: str,
        rules: "Mapping[Frozen, Callable[[Freezer, fx.Node], Any]]",
    ) -> None:
        self.graph = fx.Graph()
        self.values = recording.values
        self.masks = recording.masks
        self.title = title
        self._rules = rules
        self._data = set(carrying)
        self._levels: dict[fx.Node, int] = dict(carrying)
        self._roots: dict[fx.Node, fx.Node] = {}
        self._held = set(constant)
        self._refused: dict[fx.Node, InexactError] = {}
        self._constants: dict[int, tuple[fx.Node, Tensor]] = {}
        self._nodes = list(code.graph.nodes)
        # Of an operator with several results a tuple, where its rule writes them all.
        self._written: dict[fx.Node, Any] = {
            node: self.graph.placeholder(node.name) for node in self._nodes if node.op == "placeholder"
        }
        self._last = next(reversed(self._written.values()))
        self._mine = set(self._written.values())
        for node in constant:
            del self._written[node]

    def run(self) -> tuple[fx.Graph, list[Tensor]]:
        """The affine graph, and the held tensors that follow its other placeholders in order."""
        for node in self._nodes:
            if node.op == "output":
                self.graph.output(map_arg(node.args[0], self.linear))
            elif node.op != "placeholder":
                self._visit(node)
        self.graph.eliminate_dead_code()
        used = [(node, value) for node, value in self._constants.values() if node.users]
        for node, _ in self._constants.values():
            if not node.users:
                self.graph.erase_node(node)
        return self.graph, [value for _, value in used]

    def outcome(self) -> list[int | None]:
        """The level of each output, None where it is constant."""
        (ends,) = (node.args[0] for node in self._nodes if node.op == "output")
        return [self.level(end) if self.carries(end) else None for end in (ends if several(ends) else [ends])]

    def _visit(self, node: fx.Node) -> None:
        data = self.data(node)
        touched = [a for a in node.all_input_nodes if a in self._data or a in self._held]
        if not touched:
            if random(node):
                self._held.add(node)
            return
        root = None if HELD in node.meta else self._common_root(node, touched)
        if root is not None:
            self._roots[node] = root
        rounded = root is not None and _rounds(node, self.values) and has_data(self.values[node])
        held = operator_of(node).freeze is Frozen.HELD or HELD in node.meta
        if held or not (data or rounded) or not has_data(self.values[node]):
            self._held.add(node)
            return
        self._data.add(node)
        self._levels[node] = self._level(node, data)
        if root is None:
            # What only leads to a held value, as attention scores do, may be anything.
            try:
                self._written[node] = self._rewritten(node)
            except InexactError as refusal:
                self._refused[node] = refusal

    def _rewritten(self, node: fx.Node) -> Any:
        rule = operator_of(node).freeze
        if rule is None:
            raise self.refusal(node)
        return self._rules[rule](self, node)

    def _level(self, node: fx.Node, data: list[fx.Node]) -> int:
        """0 after a mixing operation, 1 after a non-linearity, 2 for a norm's scale, 3 where the model detaches.

        Of a product the higher factor is held.
        """
        levels = [self.level(argument) for argument in data]
        if not levels:  # whole numbers, rounded from data, are data again
            return 1
        row = operator_of(node)
        if row.freeze is Frozen.DETACH:
            return 3
        if row.scale:
            return 2
        if row.freeze is Frozen.DIVISION:
            return self.level(node.args[0]) if self.carries(node.args[0]) else 2
        if row.mixing:
            return 0
        if row.freeze in _HANDS_ON:
            return max(levels)
        if row.kind is Kind.POINTWISE:
            return min(levels) if row.affine == EITHER else max(1, *levels)
        return 0

    def _common_root(self, node: fx.Node, touched: list[fx.Node]) -> fx.Node | None:
        """The one affine node of which this is a function, element by element; None if there is no such node."""
        row = operator_of(node)
        pointwise = row.kind is Kind.POINTWISE or row.freeze is Frozen.DETACH or _rounds(node, self.values)
        if not pointwise or random(node) or not isinstance(self.values[node], Tensor):
            return None
        roots = {self._roots.get(argument, argument) for argument in touched}
        value, out = self.values[next(iter(roots))], self.values[node]
        if len(roots) != 1 or not has_data(value) or not isinstance(value, Tensor) or value.shape != out.shape:
            return None
        if out.dtype is not torch.bool and out.is_complex() != value.is_complex():
            return None
        ends = self._affine(node) or row.freeze is Frozen.LARGER
        ends = ends and self._roots.keys().isdisjoint(touched) and not self._number(node)
        return None if ends else next(iter(roots))

    def _number(self, node: fx.Node) -> bool:
        """Whether the operator joins its data with numbers alone."""
        arguments = [self.values[a] for a in node.all_input_nodes if a not in self._data]
        return not any(isinstance(value, Tensor) for value in arguments) and operator_of(node).freeze not in _ITSELF

    def _affine(self, node: fx.Node) -> bool:
        """Whether a pointwise operator is affine in its data, the other operands being constants."""
        live = [a for a in node.all_input_nodes if a in self._data or a in self._roots]
        return callee(node) not in _CASTS and (not live or jointly_affine(node, live))

    # What the rules use.

    def carries(self, argument: object) -> bool:
        """Whether an argument carries data."""
        return argument in self._data

    def data(self, node: fx.Node) -> list[fx.Node]:
        """The arguments that carry data."""
        return [argument for argument in node.all_input_nodes if argument in self._data]

    def level(self, argument: Any) -> int:
        """How strongly a factor asks to be held."""
        return self._levels.get(argument, 0)

    def value(self, argument: Any) -> Any:
        """An argument's, or a node's own, value at the given input."""
        return self.values[argument] if isinstance(argument, fx.Node) else argument

    def linear(self, argument: fx.Node) -> Any:
        """What stands for an argument in the new graph: an affine node, a constant one, or a number such as a size."""
        if argument in self._mine:
            return argument
        if argument in self._refused:
            raise self._refused[argument]
        if not isinstance(self.values[argument], Tensor | tuple | list):
            return self.values[argument]
        if argument not in self._written:
            if argument in self._held:
                self._written[argument] = self.hold(self.values[argument])
            elif argument in self._roots and not self._affine(argument):
                self._written[argument] = self._gated(argument)
            else:
                self._written[argument] = self.call(argument.target, *argument.args, **argument.kwargs)
        return self._written[argument]

    def hold(self, value: Tensor) -> fx.Node:
        """A constant of the frozen segment."""
        if id(value) not in self._constants:
            with self.graph.inserting_after(self._last):
                self._last = self.graph.placeholder(f"held_{len(self._constants)}")
            self._constants[id(value)] = (self._last, value)
            self._mine.add(self._last)
        return self._constants[id(value)][0]

    def call(self, target: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> fx.Node:
        """An operator in the new graph; its arguments may be nodes of the old one."""
        assert callable(target), "a segment holds operators alone"
        # What is held may be laid out otherwise in memory, where a view cannot follow.
        target = aten.reshape.default if target is aten.view.default else target
        if target is aten.detach.default:  # gradients end there, values do not
            return self.linear(args[0])
        node = self.graph.call_function(target, map_arg(args, self.linear), map_arg(kwargs, self.linear))
        self._mine.add(node)
        return node

    def refusal(self, node: fx.Node, why: str = "") -> InexactError:
        """No rule makes this operator affine."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        module = stack[-1][0] if stack else self.title
        space = foreign(node)
        unknown = f"\n  Nothing is known of an operator of {space!r}, whatever its name." if space else ""
        return InexactError(
            f"freeze: no rule makes the operator {node.target} affine{why}, in {module or 'the model itself'!r}."
            f"{unknown}\n"
            '  The gradient by path does not need one: gradient_spectrum, or linearize="jacobian".',
            where=f"{node.target} in {module}",
        )

    def _gated(self, node: fx.Node) -> fx.Node:
        root = self._roots[node]
        inside = {other for other, its in self._roots.items() if its is root}
        held, constant = gate(
            self.values[root], self.values[node], lambda z: evaluate(node, {root: z}, inside, self.values)
        )
        gated = self.call(aten.mul.Tensor, self.hold(held), root)
        return self.call(aten.add.Tensor, gated, self.hold(constant)) if bool(constant.any()) else gated


def _rounds(node: fx.Node, values: Mapping[fx.Node, Any]) -> bool:
    """Whether a cast rounds data to whole numbers, or takes such numbers back; true and false are a choice."""
    types = [values[n].dtype for n in (node, *node.all_input_nodes[:1]) if isinstance(values[n], Tensor)]
    if callee(node) not in _CASTS or torch.bool in types:
        return False
    return len({dtype.is_floating_point for dtype in types}) == 2

"""A graph in which nothing is written in place: each write makes a new tensor, and whoever shows its memory reads that.

A model's code writes into tensors and into views of them; the graph that the exporter gives names the tensor, not the
value that it has at the time. Here each operator that writes becomes its twin that returns a tensor instead, and
`Tensors` keeps which node holds the present value of each tensor of the code.

Torch's own functionalisation does this while it traces the model anew, and forgets where gradients were off.
"""

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from unbraid.capture._functional_twins import defaults, mutates, twin, written
from unbraid.capture._inlined import Flat
from unbraid.capture._present_values import CodeTensor, Tensors
from unbraid.capture._shared_memory import Unknown, tried
from unbraid.capture.signature import sizes
from unbraid.errors import TraceError
from unbraid.graph.questions import name_of

aten = torch.ops.aten


def without_writes(flat: Flat, fixed: frozenset[str] = frozenset()) -> Flat:
    """The same computation without operators that write; a graph that has none is handed back as it is.

    Args:
        flat: the graph.
        fixed: the names of placeholders that have no gradient: buffers and constants.

    Raises:
        TraceError: an operator writes in a way that has no functional twin; it is named.
    """
    if not any(mutates(node.target) for node in flat.graph.nodes):
        return flat
    return _Rewriter(Tensors(flat, fixed)).run()


@dataclass
class _Rewriter:
    """Writes the graph anew, operator by operator."""

    tensors: Tensors

    def run(self) -> Flat:
        for node in self.tensors.old.graph.nodes:
            if mutates(node.target):
                self.write(node)
            elif name_of(node) == "sym_size":
                self.tensors.read_size(node)
            else:
                self.tensors.read_only(node)
        return self.tensors.new

    def write(self, node: fx.Node) -> None:
        """An operator that writes: what its tensor holds from now on."""
        target = node.target
        assert isinstance(target, torch._ops.OpOverload)
        arguments = {a.name: place for place, a in enumerate(target._schema.arguments)}
        operands = [_argument(node, arguments[name], name) for name in written(target)]
        nodes = [f for f in operands if f is not None]
        if torch.Tag.inplace_view in target.tags:
            self.review(node, nodes[0])
            return
        if len(nodes) != 1 or not isinstance(nodes[0], fx.Node) or nodes[0] not in self.tensors.variables:
            self.write_several(node, nodes)
            return
        variable = self.tensors.variables[nodes[0]]
        before = self.tensors.fresh(variable.tensor)
        new = self.twinned(node, nodes[0], before)
        self.tensors.variables[node] = variable
        self.tensors.assign(variable.tensor, before, new, node)

    def write_several(self, node: fx.Node, nodes: list[Any]) -> None:
        """Lists (_foreach_add_) and operators with several written arguments that return them all."""
        flat = nodes[0] if len(nodes) == 1 and isinstance(nodes[0], list | tuple) else nodes
        if not all(isinstance(n, fx.Node) and n in self.tensors.variables for n in flat):
            raise _unknown(node)
        functional = twin(node.target) if flat is nodes[0] else None  # type: ignore[arg-type]
        if functional is None:
            raise _unknown(node)
        before = [self.tensors.value(n) for n in flat]
        written_list = self.tensors.copy(node, self.tensors.value)
        written_list.target = functional
        written_list.meta = {**node.meta, "val": [n.meta["val"] for n in flat]}
        for number, (n, was) in enumerate(zip(flat, before, strict=True)):
            piece = self.tensors.emitter(node)(operator.getitem, (written_list, number), n.meta["val"])
            self.tensors.assign(self.tensors.variables[n].tensor, was, piece, node)

    def review(self, node: fx.Node, argument: fx.Node) -> None:
        """x.t_(), x.unsqueeze_(0), x.detach_(): the same memory seen otherwise."""
        variable = self.tensors.variables[argument]
        base = variable.tensor
        if twin(node.target) is None:  # type: ignore[arg-type]
            raise _unknown(node)
        view = self.tensors.viewed(node, self.tensors.fresh(base))
        variable.tensor = CodeTensor(view, node, base, self.tensors.writes[base.root], name_of(node) == "detach_")
        self.tensors.variables[node] = variable

    def twinned(self, node: fx.Node, argument: fx.Node, before: fx.Node) -> fx.Node:
        """What an operator writes, as the result of one that does not write, in the type and the layout of the old."""
        target = node.target
        assert isinstance(target, torch._ops.OpOverload)
        if name_of(node) == "requires_grad_":
            return before
        functional = twin(target)
        outs = {a.name for a in target._schema.arguments if a.kwarg_only and a.name in written(target)}
        if functional is None:
            if outs or len(target._schema.returns) != 1:
                raise _unknown(node)
            return self.on_a_copy(node, argument, before)
        written_node = self.tensors.copy(node, self.tensors.value)
        written_node.target = functional
        written_node.kwargs = {key: value for key, value in written_node.kwargs.items() if key not in outs}
        for place, value in defaults(target, functional).items():
            written_node.args = written_node.args if place < len(written_node.args) else (*written_node.args, value)
        if outs and sizes(before.meta["val"]) != sizes(written_node.meta["val"]):
            return self.resized(written_node, node, argument, before)
        kwargs = {key: value for key, value in node.kwargs.items() if key not in outs}
        return self.as_before(written_node, node, argument, before, functional, kwargs)

    def resized(self, written_node: fx.Node, node: fx.Node, argument: fx.Node, before: fx.Node) -> fx.Node:
        """What is written with out= into a tensor of other sizes, `torch.empty(0)`, takes its place, in its type."""
        if self.tensors.variables[argument].tensor.base is not None:
            raise _unknown(node)
        dtype = before.meta["val"].dtype
        try:
            same = tried(written_node, written_node.target)[0].dtype is dtype
        except Unknown:
            same = False
        if same:
            return written_node
        return self.tensors.emitter(node)(aten.to.dtype, (written_node, dtype), node.meta["val"])

    def on_a_copy(self, node: fx.Node, argument: fx.Node, before: fx.Node) -> fx.Node:
        """An operator without a twin writes into a copy that nobody else sees."""
        own = self.tensors.emitter(node)(aten.clone.default, (before,), before.meta["val"])
        return self.tensors.copy(node, lambda n: own if n is argument else self.tensors.value(n))

    def as_before(
        self,
        written_node: fx.Node,
        node: fx.Node,
        argument: fx.Node,
        before: fx.Node,
        functional: Any,
        kwargs: dict[str, Any],
    ) -> fx.Node:
        emit, old = self.tensors.emitter(node), before.meta["val"]
        if name_of(node) == "copy_":
            return written_node  # whose twin keeps type and layout
        try:
            result, given = tried(node, functional, kwargs)
            dtype, kept = result.dtype, torch.empty_like(given[argument])
            laid_out = result.stride() == kept.stride() and result.shape == kept.shape
        except Unknown:
            dtype, laid_out = old.dtype, False
        if dtype is not old.dtype:
            written_node.meta = {**written_node.meta, "val": written_node.meta["val"].to(dtype)}
            written_node = emit(aten.to.dtype, (written_node, old.dtype), old)
        return written_node if laid_out else emit(aten.copy.default, (before, written_node), old)


def _argument(node: fx.Node, place: int, name: str) -> Any:
    return node.kwargs.get(name, node.args[place] if place < len(node.args) else None)


def _unknown(node: fx.Node) -> TraceError:
    return TraceError(
        f"The operator {node.target} writes into its arguments, and torch has none that returns them instead."
    )

"""A graph in which nothing is written in place: each write makes a new tensor, and whoever shows its memory reads that.

A model's code writes into tensors and into views of them; the graph that the exporter gives names the tensor, not the
value that it has at the time. Here every tensor of the model's code is a `_Tensor`, which knows the node that holds its
present value. A view knows its base. After a write the way up to the base is undone (`inverse`), and other views of the
same memory are taken anew when they are next read.

    h = stem(x)                       h: linear
    y = h[:, :4]                      y: slice(linear), a view of h
    y += f(h)                         y: add(slice, ...)         h: slice_scatter(linear, add)
    return h.tanh()                   tanh(slice_scatter)

Torch's own functionalisation does this while it traces the model anew, and forgets where gradients were off.

**Gradients.** What is written while gradients are off, or through `detach`, changes values and leaves the gradient as
it was: autograd's history of the tensor does not know of it. The value is then new + (old − old), of which the first
is detached and of the last two the second.
"""

import operator
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from unbraid.capture._functional_twins import defaults, mutates, twin, written
from unbraid.capture._inlined import Flat
from unbraid.capture._shared_memory import Unknown, same_object, shares, tried
from unbraid.capture._view_inverses import inverse
from unbraid.capture.signature import sizes
from unbraid.errors import TraceError
from unbraid.graph.questions import is_float, name_of, values_read

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
    return _Rewriter(flat, fixed).run()


@dataclass(eq=False)
class _Tensor:
    """A tensor of the model's code.

    Attributes:
        value: the node of the new graph that holds its value.
        view: the node of the old graph that made it as a view; None for memory of its own.
        base: what it is a view of.
        at: how often the memory had been written when the value was taken.
        cuts: whether the gradient ends between it and its base.
    """

    value: fx.Node
    view: fx.Node | None = None
    base: "_Tensor | None" = None
    at: int = 0
    cuts: bool = False

    @property
    def root(self) -> "_Tensor":
        return self if self.base is None else self.base.root


@dataclass(eq=False)
class _Name:
    """What a variable of the model's code names: `x.t_()` makes x another view of the same memory."""

    tensor: _Tensor


@dataclass
class _Rewriter:
    old: Flat
    fixed: frozenset[str]
    new: Flat = field(default_factory=Flat)
    names: dict[fx.Node, _Name] = field(default_factory=dict)
    plain: dict[fx.Node, fx.Node] = field(default_factory=dict)
    writes: Counter[_Tensor] = field(default_factory=Counter)
    live: set[fx.Node] = field(default_factory=set)

    def run(self) -> Flat:
        for node in self.old.graph.nodes:
            if mutates(node.target):
                self.write(node)
            elif name_of(node) == "sym_size":
                self.plain[node] = self.copy(
                    node, lambda n: self.names[n].tensor.value if n in self.names else self.plain[n]
                )
            else:
                self.read_only(node)
        return self.new

    def read_only(self, node: fx.Node) -> None:
        base = self.base_of(node)
        if base is not None and same_object(node, base):
            self.names[node] = self.names[base]
            return
        copied = self.copy(node, self.value)
        if base is not None:
            of = self.names[base].tensor
            cuts = name_of(node) == "detach" or (node in self.old.ungraded and of.value in self.live)
            self.names[node] = _Name(_Tensor(copied, node, of, self.writes[of.root], cuts))
        elif isinstance(node.meta.get("val"), Tensor):
            self.names[node] = _Name(_Tensor(copied))
        else:
            self.plain[node] = copied

    def base_of(self, node: fx.Node) -> fx.Node | None:
        """The tensor of whose memory a node is a view."""
        if name_of(node) == "getitem":
            pieces = node.args[0]
            # Pieces that share memory are views of what was split.
            base = shares(pieces) if isinstance(pieces, fx.Node) and isinstance(node.meta.get("val"), Tensor) else None
        elif isinstance(node.meta.get("val"), Tensor):
            base = shares(node)
        else:
            base = None
        return base if base in self.names else None

    def value(self, node: fx.Node) -> fx.Node:
        return self.fresh(self.names[node].tensor) if node in self.names else self.plain[node]

    def fresh(self, tensor: _Tensor) -> fx.Node:
        """The node that holds a tensor's value now."""
        if tensor.base is not None and tensor.at != self.writes[tensor.root]:
            assert tensor.view is not None
            tensor.value = self.viewed(tensor.view, self.fresh(tensor.base))
            tensor.at = self.writes[tensor.root]
        return tensor.value

    def viewed(self, view: fx.Node, base: fx.Node) -> fx.Node:
        """The same view of another base."""
        if name_of(view) == "getitem":
            pieces = view.args[0]
            assert isinstance(pieces, fx.Node)
            return self.copy(view, lambda n: self.viewed(pieces, base))
        of = shares(view)
        view_of_base = self.copy(view, lambda n: base if n is of else self.value(n))
        if mutates(view.target):  # x.t_()
            view_of_base.target = twin(view.target)  # type: ignore[arg-type, assignment]
        return view_of_base

    def copy(self, node: fx.Node, value: Any) -> fx.Node:
        copied = self.new.graph.node_copy(node, value)
        if copied.op == "placeholder":
            copied.name = node.name
        return self.noted(copied, node in self.old.ungraded)

    def noted(self, node: fx.Node, ungraded: bool) -> fx.Node:
        if ungraded:
            self.new.ungraded.add(node)
        read = values_read(node)  # an empty_like has the sizes of its operand, not its gradient
        gradient = node.name not in self.fixed if node.op == "placeholder" else not self.live.isdisjoint(read)
        if gradient and not ungraded and is_float(node) and name_of(node) != "detach":
            self.live.add(node)
        return node

    def write(self, node: fx.Node) -> None:
        target = node.target
        assert isinstance(target, torch._ops.OpOverload)
        arguments = {a.name: place for place, a in enumerate(target._schema.arguments)}
        operands = [_argument(node, arguments[name], name) for name in written(target)]
        nodes = [f for f in operands if f is not None]
        if torch.Tag.inplace_view in target.tags:
            self.review(node, nodes[0])
            return
        if len(nodes) != 1 or not isinstance(nodes[0], fx.Node) or nodes[0] not in self.names:
            self.write_several(node, nodes)
            return
        name = self.names[nodes[0]]
        before = self.fresh(name.tensor)
        new = self.twinned(node, nodes[0], before)
        self.names[node] = name
        self.set(name.tensor, before, new, node)

    def write_several(self, node: fx.Node, nodes: list[Any]) -> None:
        """Lists (_foreach_add_) and operators with several written arguments that return them all."""
        flat = nodes[0] if len(nodes) == 1 and isinstance(nodes[0], list | tuple) else nodes
        if not all(isinstance(n, fx.Node) and n in self.names for n in flat):
            raise _unknown(node)
        functional = twin(node.target) if flat is nodes[0] else None  # type: ignore[arg-type]
        if functional is None:
            raise _unknown(node)
        before = [self.value(n) for n in flat]
        written_list = self.copy(node, self.value)
        written_list.target = functional
        written_list.meta = {**node.meta, "val": [n.meta["val"] for n in flat]}
        for number, (n, was) in enumerate(zip(flat, before, strict=True)):
            piece = self.emitter(node)(operator.getitem, (written_list, number), n.meta["val"])
            self.set(self.names[n].tensor, was, piece, node)

    def review(self, node: fx.Node, argument: fx.Node) -> None:
        """x.t_(), x.unsqueeze_(0), x.detach_(): the same memory seen otherwise."""
        name = self.names[argument]
        base = name.tensor
        if twin(node.target) is None:  # type: ignore[arg-type]
            raise _unknown(node)
        view = self.viewed(node, self.fresh(base))
        name.tensor = _Tensor(view, node, base, self.writes[base.root], name_of(node) == "detach_")
        self.names[node] = name

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
        written_node = self.copy(node, self.value)
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
        if self.names[argument].tensor.base is not None:
            raise _unknown(node)
        dtype = before.meta["val"].dtype
        try:
            same = tried(written_node, written_node.target)[0].dtype is dtype
        except Unknown:
            same = False
        return written_node if same else self.emitter(node)(aten.to.dtype, (written_node, dtype), node.meta["val"])

    def on_a_copy(self, node: fx.Node, argument: fx.Node, before: fx.Node) -> fx.Node:
        """An operator without a twin writes into a copy that nobody else sees."""
        own = self.emitter(node)(aten.clone.default, (before,), before.meta["val"])
        return self.copy(node, lambda n: own if n is argument else self.value(n))

    def as_before(
        self,
        written_node: fx.Node,
        node: fx.Node,
        argument: fx.Node,
        before: fx.Node,
        functional: Any,
        kwargs: dict[str, Any],
    ) -> fx.Node:
        emit, old = self.emitter(node), before.meta["val"]
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

    def set(self, tensor: _Tensor, before: fx.Node, new: fx.Node, writer: fx.Node) -> None:
        """A tensor's new value, and that of all that it is a view of."""
        unseen = writer in self.old.ungraded
        bases, emit = [], self.emitter(writer, ungraded=False)
        while True:
            tensor.value = self.unseen(before, new, writer) if unseen else new
            bases.append(tensor)
            if tensor.base is None:
                break
            before, view = self.fresh(tensor.base), tensor.view
            assert view is not None
            new = self.undone(view, before, tensor.value, emit)
            new = self.in_layout(new, before, view, emit)
            unseen, tensor = tensor.cuts, tensor.base
        self.writes[tensor] += 1
        for written_tensor in bases:
            written_tensor.at = self.writes[tensor]

    def undone(self, view: fx.Node, before: fx.Node, new: fx.Node, emit: Any) -> fx.Node:
        rest = map_arg(view.args[1:], self.value)
        return inverse(view, rest, before, new, emit, lambda base: self.viewed(view, base))

    def in_layout(self, new: fx.Node, before: fx.Node, view: fx.Node, emit: Any) -> fx.Node:
        """What `reshape` gives back is contiguous, whatever the base was."""
        if name_of(new) != "reshape" or before.meta["val"].is_contiguous():
            return new
        return emit(aten.copy.default, (before, new), before.meta["val"])

    def unseen(self, before: fx.Node, new: fx.Node, writer: fx.Node) -> fx.Node:
        """New values of which autograd's history knows nothing."""
        if before not in self.live or before is new:
            return new
        emit, like = self.emitter(writer, ungraded=False), before.meta["val"]
        held = emit(aten.detach.default, (new,), like)
        nothing = emit(aten.sub.Tensor, (before, emit(aten.detach.default, (before,), like)), like)
        return emit(aten.add.Tensor, (held, nothing), like)

    def emitter(self, writer: fx.Node, *, ungraded: bool | None = None) -> Any:
        """Makes operators in the name of one that writes."""
        off = writer in self.old.ungraded if ungraded is None else ungraded

        def emit(target: Any, args: tuple[Any, ...], value: Any) -> fx.Node:
            node = self.new.graph.call_function(target, args)
            node.meta = {**writer.meta, "val": value}
            return self.noted(node, off)

        return emit


def _argument(node: fx.Node, place: int, name: str) -> Any:
    return node.kwargs.get(name, node.args[place] if place < len(node.args) else None)


def _unknown(node: fx.Node) -> TraceError:
    return TraceError(
        f"The operator {node.target} writes into its arguments, and torch has none that returns them instead."
    )

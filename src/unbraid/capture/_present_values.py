"""The tensors of a model's code while its graph is written anew: which node holds the present value of each.

A `CodeTensor` knows the node of the new graph that holds its value. A view knows its base, and how often their memory
had been written when its value was taken: if it was written since, the view is taken anew when it is next read. After
a write (`assign`) the way up to the base is undone (`inverse`), so that whoever shows the memory reads what is new.

    h = stem(x)                       h: linear
    y = h[:, :4]                      y: slice(linear), a view of h
    y += f(h)                         y: add(slice, ...)         h: slice_scatter(linear, add)
    return h.tanh()                   tanh(slice_scatter)

**Gradients.** What is written while gradients are off, or through `detach`, changes values and leaves the gradient as
it was: autograd's history of the tensor does not know of it. The value is then new + (old − old), of which the first
is detached and of the last two the second.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from unbraid.capture._functional_twins import mutates, twin
from unbraid.capture._inlined import Flat
from unbraid.capture._shared_memory import same_object, shares
from unbraid.capture._view_inverses import inverse
from unbraid.graph.questions import is_float, name_of, values_read

__all__ = ["CodeTensor", "Tensors", "Variable"]

aten = torch.ops.aten


@dataclass(eq=False)
class CodeTensor:
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
    base: "CodeTensor | None" = None
    at: int = 0
    cuts: bool = False

    @property
    def root(self) -> "CodeTensor":
        return self if self.base is None else self.base.root


@dataclass(eq=False)
class Variable:
    """What a variable of the model's code names: `x.t_()` makes x another view of the same memory."""

    tensor: CodeTensor


@dataclass
class Tensors:
    """The tensors of an old graph, in a new one that grows node by node.

    Attributes:
        old: the graph of the model's code, whose nodes name tensors.
        fixed: the names of placeholders that have no gradient: buffers and constants.
        new: the graph that is written, whose nodes are values.
        variables: what each node of the old graph names.
        plain: the new node of each old one that is no tensor.
        writes: how often the memory of each base was written.
        live: the new nodes that have a gradient.
    """

    old: Flat
    fixed: frozenset[str]
    new: Flat = field(default_factory=Flat)
    variables: dict[fx.Node, Variable] = field(default_factory=dict)
    plain: dict[fx.Node, fx.Node] = field(default_factory=dict)
    writes: Counter[CodeTensor] = field(default_factory=Counter)
    live: set[fx.Node] = field(default_factory=set)

    def read_only(self, node: fx.Node) -> None:
        """An operator that writes nothing: what it makes is a view, memory of its own, or no tensor."""
        base = self.base_of(node)
        if base is not None and same_object(node, base):
            self.variables[node] = self.variables[base]
            return
        copied = self.copy(node, self.value)
        if base is not None:
            of = self.variables[base].tensor
            cuts = name_of(node) == "detach" or (node in self.old.ungraded and of.value in self.live)
            self.variables[node] = Variable(CodeTensor(copied, node, of, self.writes[of.root], cuts))
        elif isinstance(node.meta.get("val"), Tensor):
            self.variables[node] = Variable(CodeTensor(copied))
        else:
            self.plain[node] = copied

    def read_size(self, node: fx.Node) -> None:
        """A size: no view is taken anew for it, as what it shows may change, its size does not."""
        self.plain[node] = self.copy(
            node, lambda n: self.variables[n].tensor.value if n in self.variables else self.plain[n]
        )

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
        return base if base in self.variables else None

    def value(self, node: fx.Node) -> fx.Node:
        return self.fresh(self.variables[node].tensor) if node in self.variables else self.plain[node]

    def fresh(self, tensor: CodeTensor) -> fx.Node:
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
        return self.note(copied, node in self.old.ungraded)

    def note(self, node: fx.Node, ungraded: bool) -> fx.Node:
        if ungraded:
            self.new.ungraded.add(node)
        read = values_read(node)  # an empty_like has the sizes of its operand, not its gradient
        gradient = node.name not in self.fixed if node.op == "placeholder" else not self.live.isdisjoint(read)
        if gradient and not ungraded and is_float(node) and name_of(node) != "detach":
            self.live.add(node)
        return node

    def assign(self, tensor: CodeTensor, before: fx.Node, new: fx.Node, writer: fx.Node) -> None:
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
            return self.note(node, off)

        return emit

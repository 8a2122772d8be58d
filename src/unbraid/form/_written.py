"""A sum that is written into a part of a tensor is a sum with the whole of it.

    y = h[:, :4];  y += f(h)        slice_scatter(h, h[:, :4] + f(h))   =   h + slice_scatter(0, f(h))

A coupling stays as it is: h[:, :4] += f(h[:, 4:]) joins parts that have nothing in common, and is no sum with h.
"""

import copy
from typing import Any

import torch
from torch import Tensor, fx

from unbraid.form._dataflow import Dataflow
from unbraid.form._elements import Constant, Elements, unmoved
from unbraid.form._join import Join, Term
from unbraid.graph import name_of

aten = torch.ops.aten

# What writes a tensor into another's part, and what reads such a part, by the same further arguments.
_READ_BY = {
    "slice_scatter": "slice",
    "select_scatter": "select",
    "diagonal_scatter": "diagonal",
    "index_put": "index",
    "_index_put_impl": "index",
    "masked_scatter": "masked_select",
    "scatter": "gather",
}
# Where the tensor that is written stands among the arguments.
_SOURCE = {"index_put": 2, "_index_put_impl": 2, "masked_scatter": 2, "scatter": 3}


class _Write:
    """A node that writes a source into a part of a base."""

    def __init__(self, node: fx.Node) -> None:
        self.node = node
        self.base: Any = node.args[0]
        self.place = _SOURCE.get(name_of(node), 1)
        self.source: Any = node.args[self.place]
        self.where = [*node.args[1 : self.place], *node.args[self.place + 1 :]]

    def written(self, base: fx.Node, source: fx.Node) -> tuple[Any, ...]:
        """The arguments that write another source into another base."""
        return (base, *self.node.args[1 : self.place], source, *self.node.args[self.place + 1 :])


class Written:
    """Writes sums into parts as sums of the whole.

    Args:
        flow: the data flow of the graph.
        constant: the value of a placeholder that holds a constant, by its name; None for others.
    """

    def __init__(self, flow: Dataflow, constant: Constant) -> None:
        self.flow = flow
        self.constant = constant
        self._done: dict[fx.Node, _Write] = {}

    def run(self) -> bool:
        """Returns whether there were any."""
        for node in list(self.flow.graph.nodes):
            if (write := self._write(node)) is not None:
                self._overwrite(write)
                if terms := self._added(write):
                    self._done[node] = write
                    self._as_sum(write, terms)
        return bool(self._done)

    def _write(self, node: fx.Node) -> _Write | None:
        if node.op != "call_function" or name_of(node) not in _READ_BY or node.kwargs or len(node.args) < 2:
            return None
        write = _Write(node)
        tensors = all(isinstance(a, fx.Node) and isinstance(a.meta.get("val"), Tensor) for a in (write.base, write.source))
        return write if tensors and {write.base, write.source} <= self.flow.carries and not _adds_up(node) else None

    def _overwrite(self, write: _Write) -> None:
        """What was written at the same place before is gone, as where y += f(h) writes y itself, and then h[:, :4]."""
        before = self._done.get(write.base) or self._write(write.base)
        if before is not None and before.node.target is write.node.target and before.where == write.where:
            if before.node.meta["val"].dtype == write.node.meta["val"].dtype:
                write.base = before.base
                write.node.args = write.written(write.base, write.source)

    def _added(self, write: _Write) -> list[Term]:
        """What is added to the part that is written; nothing where it is no sum with that part."""
        terms = Join(write.source).terms
        if not all(isinstance(term.node, fx.Node) for term in terms):
            return []
        elements = Elements(self.flow, unmoved(write.base), self.constant)
        own = [term for term in terms if term.factor == 1 and self._reads(write, elements, term.node)]
        others = [term for term in terms if term not in own[:1]]
        data = [term for term in others if term.node in self.flow.carries]
        apart = own and any(elements.apart(own[0].node, term.node) for term in data)
        return others if own and data and not apart else []

    def _reads(self, write: _Write, elements: Elements, node: Any) -> bool:
        """Whether a node is the part of the base in whose place something is written."""
        node = unmoved(node)
        if name_of(node) == _READ_BY[name_of(write.node)] and unmoved(node.args[0]) is unmoved(write.base):
            if _alike([*node.args[1:]], write.where):
                return True
        numbers = elements.numbers(node)
        if not isinstance(numbers, Tensor) or numbers.shape != elements.sizes(write.source):
            return False
        return self._lies(write, elements, numbers)

    def _lies(self, write: _Write, elements: Elements, numbers: Tensor) -> bool:
        """Whether a write of these numbers, those of the base's own elements, leaves the base as it is."""
        whole = elements.numbers(unmoved(write.base))
        written = elements.called(write.node, whole, {write.place: numbers})
        return isinstance(written, Tensor) and torch.equal(written, whole)

    def _as_sum(self, write: _Write, terms: list[Term]) -> None:
        node, graph = write.node, self.flow.graph
        with graph.inserting_before(node):
            zeros = _call(graph, node, aten.zeros_like.default, (write.base,))
            total = write.base
            for term in terms:
                assert isinstance(term.node, fx.Node)
                part = _call(graph, node, node.target, write.written(zeros, term.node))
                if term.factor != 1:
                    part = _call(graph, node, aten.mul.Tensor, (part, term.factor))
                if term is terms[-1]:
                    break
                total = _call(graph, node, aten.add.Tensor, (total, part))
        node.target, node.args, node.kwargs = aten.add.Tensor, (total, part), {}
        meta = write.source.meta  # the addition stands in the line that adds
        node.meta.update({name: meta[name] for name in ("stack_trace", "nn_module_stack") if name in meta})


def _adds_up(node: fx.Node) -> bool:
    """Whether an index_put accumulates: the old values stay."""
    return "index_put" in name_of(node) and len(node.args) > 3 and bool(node.args[3])


def _alike(read: list[Any], written: list[Any]) -> bool:
    """Whether two lists of arguments are one, but for those at the end that are the defaults."""
    longer, shorter = (read, written) if len(read) > len(written) else (written, read)
    return longer[: len(shorter)] == shorter and all(a in (None, False, 1) for a in longer[len(shorter) :])


def _call(graph: fx.Graph, like: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
    node = graph.call_function(target, args)
    node.meta = copy.copy(like.meta)
    return node

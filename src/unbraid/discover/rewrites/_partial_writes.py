"""A sum that is written into a part of a tensor is a sum with the whole of it.

    y = h[:, :4];  y += f(h)        slice_scatter(h, h[:, :4] + f(h))   =   h + slice_scatter(0, f(h))

A coupling stays as it is: h[:, :4] += f(h[:, 4:]) joins parts that have nothing in common, and is no sum with h.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from unbraid.discover._dataflow import Dataflow, same_shape
from unbraid.discover._element_maps import Constant, Elements, unmoved
from unbraid.discover._flattened_sums import Join, Term
from unbraid.discover._summands import Operand
from unbraid.discover.rewrites._fused import accumulates
from unbraid.discover.rewrites._graph_writer import Writer
from unbraid.graph.operators import callee, operator_of

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class _Write:
    """A node that writes a source into a part of a base: as it was found, for it is rewritten.

    Attributes:
        node: the node.
        target: its operator.
        base: what is written into.
        source: what is written.
        place: where the source stands among the arguments.
        where: the arguments that say into which part.
    """

    node: fx.Node
    target: Any
    base: fx.Node
    source: fx.Node
    place: int
    where: tuple[Any, ...]

    def arguments(self, base: fx.Node, source: fx.Node) -> tuple[Any, ...]:
        """The arguments that write another source into another base."""
        if callee(self.node) is aten.where:
            return (*self.where, *((source, base) if self.place == 1 else (base, source)))
        return (base, *self.where[: self.place - 1], source, *self.where[self.place - 1 :])


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
            write = self._write(node) or self._choice(node)
            while write is not None:
                if terms := self._added(write):
                    self._done[node] = write
                    self._as_sum(write, terms)
                    break
                write = self._over(write)
        return bool(self._done)

    def _write(self, node: fx.Node) -> _Write | None:
        if node.op != "call_function" or operator_of(node).reader is None or node.kwargs or len(node.args) < 2:
            return None
        ((_, place),) = operator_of(node).affine  # in what is written into, and in what is written
        base, source = node.args[0], node.args[place]
        if not (isinstance(base, fx.Node) and isinstance(source, fx.Node)) or accumulates(node):
            return None
        if not {base, source} <= self.flow.carries:
            return None
        return _Write(node, node.target, base, source, place, (*node.args[1:place], *node.args[place + 1 :]))

    def _choice(self, node: fx.Node) -> _Write | None:
        """where(mask, h + f(h), h) writes the sum into h."""
        if node.op != "call_function" or callee(node) is not aten.where or len(node.args) != 3:
            return None
        for place in (1, 2):
            base, source = node.args[3 - place], node.args[place]
            if not (isinstance(base, fx.Node) and isinstance(source, fx.Node)) or not same_shape(base, node):
                continue
            if {base, source} <= self.flow.carries and any(term.node is base for term in Join(source).terms):
                return _Write(node, node.target, base, source, place, (node.args[0],))
        return None

    def _over(self, write: _Write) -> _Write | None:
        """The same write over an earlier base: where y += f(h) writes y and then h[:, :4], the first write is gone."""
        before = self._done.get(write.base) or self._write(write.base)
        same = (
            before is not None
            and callee(write.node) is not aten.where
            and before.target is write.target
            and before.where == write.where
        )
        return replace(write, base=before.base) if before is not None and same else None

    def _added(self, write: _Write) -> list[Term]:
        """What is added to the part that is written; nothing where it is no sum with that part."""
        terms = Join(write.source).terms
        if len(terms) < 2 or not all(_like(term, write.source) for term in terms):
            return []
        elements = Elements(self.flow, unmoved(write.base), self.constant)
        own = next((term for term in terms if term.factor == 1 and self._reads(write, elements, term)), None)
        others = [term for term in terms if term is not own]
        data = [term.node for term in others if isinstance(term.node, fx.Node) and term.node in self.flow.carries]
        if own is None or not data or any(elements.apart(_tensor(own), node) for node in data):
            return []
        return others

    def _reads(self, write: _Write, elements: Elements, term: Term) -> bool:
        """Whether an operand is the part of the base in whose place something is written."""
        node = unmoved(_tensor(term))
        if callee(write.node) is aten.where:
            return node is elements.whole
        reads = callee(node) is operator_of(write.node).reader and unmoved(_tensor(node.args[0])) is elements.whole
        if reads and _alike(node.args[1:], write.where):
            return True
        numbers = elements.numbers(node)
        if not isinstance(numbers, Tensor):
            return False
        # Written in their place, the base's own numbers leave it as it is.
        written = elements.written(write.node, write.place, numbers)
        return written is not None and torch.equal(written, elements.numbers(elements.whole))

    def _as_sum(self, write: _Write, terms: list[Term]) -> None:
        node, writer = write.node, Writer(self.flow, write.node)
        zeros = writer.call(aten.zeros_like.default, (write.base,), like=node)
        parts: list[Operand] = [write.base]
        for term in terms:
            part = writer.call(node.target, write.arguments(zeros, _tensor(term)), like=node)
            parts.append(writer.multiple(part, term.factor))
        writer.sum(parts, at=node)
        meta = write.source.meta  # the addition stands in the line that adds
        node.meta.update({name: meta[name] for name in ("stack_trace", "nn_module_stack") if name in meta})


def _tensor(argument: Any) -> fx.Node:
    node = argument.node if isinstance(argument, Term) else argument
    assert isinstance(node, fx.Node)
    return node


def _like(term: Term, source: fx.Node) -> bool:
    """Whether an operand is a tensor of the sizes and the type of what is written."""
    if not isinstance(term.node, fx.Node) or not same_shape(term.node, source):
        return False
    return bool(term.node.meta["val"].dtype == source.meta["val"].dtype)


def _alike(read: tuple[Any, ...], written: tuple[Any, ...]) -> bool:
    """Whether two lists of arguments are one, but for those at the end that are the defaults."""
    longer, shorter = (read, written) if len(read) > len(written) else (written, read)
    return longer[: len(shorter)] == shorter and all(a in (None, False, 1) for a in longer[len(shorter) :])

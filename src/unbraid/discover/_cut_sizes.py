"""Where the segments of a cut graph have their sizes from.

A size that an operator reads, as `expand` does, is no tensor, and crosses no cut. Each segment reads it from a tensor
at hand that has it, or computes it from other sizes as the model did. Where neither can be, the tensor that has it, or
from whose numbers it is counted, crosses the cut, too.
"""

import copy
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from unbraid.graph.operators import callee

aten = torch.ops.aten


@dataclass(eq=False)
class Cone:
    """A segment in the making: the nodes that serve one cut, or the several results of one operator.

    Attributes:
        ends: the nodes that it makes for others.
        nodes: its nodes, in order of execution.
        inputs: what it reads of other segments.
        size_only: those of them that it reads for their sizes alone.
        counted: those from whose numbers sizes are computed.
        params: the parameters, buffers and constants that it reads.
    """

    ends: list[fx.Node]
    nodes: list[fx.Node] = field(default_factory=list)
    inputs: dict[fx.Node, None] = field(default_factory=dict)
    size_only: set[fx.Node] = field(default_factory=set)
    counted: set[fx.Node] = field(default_factory=set)
    params: dict[fx.Node, None] = field(default_factory=dict)


class Sizes:
    """Finds for one cone where its sizes come from.

    Args:
        cone: the cone, whose inputs and parameters are added to.
        given: the inputs of the model.
        state: the names of the placeholders that stand for parameters, buffers and constants.
    """

    def __init__(self, cone: Cone, given: Iterable[fx.Node], state: Collection[str]) -> None:
        self.cone = cone
        self.given = given
        self.state = state
        self._inside = set(cone.nodes)
        self._seen = set[fx.Node]()

    def crossing(self, size: fx.Node) -> Iterator[fx.Node]:
        """The tensors that must cross the cut for a size; the cone reads them from now on."""
        if size in self._seen or size.op != "call_function" or _holder(size, self.cone.inputs) is not None:
            return
        self._seen.add(size)
        if callee(size) is not aten.sym_size:
            for argument in size.all_input_nodes:
                yield from self._of(argument)
        elif size.args[0] not in self._inside:
            holder = _holder(size, self.given)
            tensor = size.args[0] if holder is None else holder[0]
            assert isinstance(tensor, fx.Node)
            self.cone.inputs[tensor] = None
            yield tensor

    def _of(self, argument: fx.Node) -> Iterator[fx.Node]:
        """The same for what a size is computed from."""
        if is_size(argument):
            yield from self.crossing(argument)
        elif argument.name in self.state:  # a number that a buffer holds
            self.cone.params[argument] = None
        elif argument not in self._inside:  # a number that is counted from data
            self.cone.counted.add(argument)
            self.cone.inputs[argument] = None
            yield argument


def read_size(
    node: fx.Node, graph: fx.Graph, copies: dict[fx.Node, fx.Node], copied: Callable[[fx.Node], fx.Node]
) -> fx.Node:
    """A size in a segment's own graph, read from a tensor at hand or computed from other sizes as the model did."""
    holder = _holder(node, copies)
    if holder is None:
        return graph.node_copy(node, copied)
    size = graph.call_function(aten.sym_size.int, (copies[holder[0]], holder[1]))
    size.meta = copy.copy(node.meta)
    return size


def is_size(node: fx.Node) -> bool:
    """Whether a node holds a size, or another number that the caller's sizes decide."""
    return isinstance(node.meta.get("val"), torch.SymInt | torch.SymFloat | torch.SymBool)


def _holder(size: fx.Node, among: Iterable[fx.Node]) -> tuple[fx.Node, int] | None:
    """A tensor and the dimension in which it has this size."""
    wanted = str(size.meta["val"])
    for node in among:
        value = node.meta.get("val")
        for dimension, own in enumerate(value.shape if isinstance(value, Tensor) else ()):
            if str(own) == wanted:
                return node, dimension
    return None

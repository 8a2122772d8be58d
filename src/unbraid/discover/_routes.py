"""The way up from an operand: what carries it, operator by operator, as far as one of its inputs is carried."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from unbraid.discover._broadcast import spreads
from unbraid.discover._dataflow import Dataflow
from unbraid.graph.questions import Carrier, carrier, values_read


@dataclass(frozen=True)
class Step:
    """A tensor that a way meets, and the weakest carrier that it has passed until there."""

    node: fx.Node
    strength: Carrier


def way_up(flow: Dataflow, node: fx.Node, *, held: bool) -> list[Step]:
    """The tensors that an operand carries, itself first.

    Args:
        flow: the data flow.
        node: the operand.
        held: whether the way may pass norms, whose scale depends on the data, as if that scale were held.
    """
    way, strength, spread = [Step(node, Carrier.SHAPE)], Carrier.SHAPE, False
    while node.op == "call_function":
        data = flow.data(node)
        passed = carrier(node, data, held=held)
        carried = data or values_read(node)  # a learned token carries no data, and has a way all the same
        if passed is None or len(carried) != 1 or (not data and passed is not Carrier.SHAPE):
            break
        spread |= bool(data) and spreads(node)
        if spread and passed is not Carrier.SHAPE:  # a part, or a mean, that is spread over others is no skip
            break
        node, strength = carried[0], max(strength, passed)
        way.append(Step(node, strength))
    return way


def met(
    flow: Dataflow, ends: Sequence[fx.Node], marked: Collection[fx.Node], sums: Collection[fx.Node]
) -> Mapping[fx.Node, set[fx.Node]]:
    """For each end the marked nodes from which it is computed, itself left out.

    A marked node without data, a parameter, counts only where no way to it has to pass one of `sums`, those of the
    blocks: what one layer adds to the stream is there in each later layer that adds it again, and begins no block.

    Args:
        flow: the data flow.
        ends: the operands.
        marked: the nodes in question.
        sums: the sums of blocks.
    """
    data = [node for node in marked if node in flow.carries]
    learned = [node for node in marked if node not in flow.carries]
    found, near = _met(flow, ends, data, ()), _met(flow, ends, learned, sums)
    return {end: found[end] | near[end] for end in ends}


def _met(
    flow: Dataflow, ends: Sequence[fx.Node], marked: Collection[fx.Node], closed: Collection[fx.Node]
) -> Mapping[fx.Node, set[fx.Node]]:
    if not marked:
        return {end: set() for end in ends}
    lowest = min(flow.order[node] for node in marked)
    above, stack = set(ends), [end for end in ends if end not in closed]
    while stack:
        for read in values_read(stack.pop()):
            if read not in above and read not in closed and flow.order[read] >= lowest:
                above.add(read)
                stack.append(read)
    bits = {node: 1 << place for place, node in enumerate(marked)}
    below = dict[fx.Node, int]()
    for node in sorted(above, key=flow.order.__getitem__):
        below[node] = 0
        for read in values_read(node):
            below[node] |= below.get(read, 0) | (bits.get(read, 0) if read in above else 0)

    def marked_above(end: fx.Node) -> set[fx.Node]:
        return {node for node, bit in bits.items() if below[end] & bit}

    return {end: marked_above(end) for end in ends}

"""The way up from an operand: what carries it, operator by operator, as far as one of its inputs is carried."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import torch
from torch import fx

from unbraid.discover._dataflow import Dataflow, same_shape
from unbraid.discover._written_norms import is_length
from unbraid.discover.rewrites._broadcast import spreads
from unbraid.graph.operators import Attention, Frozen, Kind, callee, operator_of
from unbraid.graph.questions import Carrier, carrier, mixing, values_read

aten = torch.ops.aten


@dataclass(frozen=True)
class Step:
    """A tensor that a way meets, and the weakest carrier that it has passed until there."""

    node: fx.Node
    strength: Carrier


def way_up(flow: Dataflow, node: fx.Node, *, held: bool) -> list[Step]:
    """The tensors that an operand carries without gates, itself first.

    Args:
        flow: the data flow.
        node: the operand.
        held: whether the way may pass norms, whose scale depends on the data, as if that scale were held.
    """
    return ways_up(flow, node, held=held, gates=False)[0]


def ways_up(flow: Dataflow, node: fx.Node, *, held: bool, gates: bool = True) -> list[list[Step]]:
    """The ways up from an operand, itself first: one, and of a product of two tensors of data one by each factor.

    The other factor is held, as a gate. What is behind one is only moved and scaled: a matrix there would make an
    expert of the operand, as silu(W x) · V x is one, and no skip.

    Args:
        flow: the data flow.
        node: the operand.
        held: whether a way may pass norms, whose scale depends on the data, as if that scale were held.
        gates: whether a way may pass products of data.
    """
    ways, begun = list[list[Step]](), [([Step(node, Carrier.SHAPE)], False)]
    while begun:
        way, spread = begun.pop()
        further = _further(flow, way[-1], held=held)
        factors = _factors(flow, way[-1]) if gates and not spread else []
        if factors or further is None or (spread and further.strength is not Carrier.SHAPE):
            # A part, or a mean, that is spread over others is no skip.
            factors = factors if len(ways) + len(begun) < _MOST_WAYS else []
            begun += [([*way, Step(factor, Carrier.GATED)], False) for factor in factors]
            ways += [] if factors else [way]
            continue
        begun.append(([*way, further], spread or (bool(flow.data(way[-1].node)) and spreads(way[-1].node))))
    return ways


_MOST_WAYS = 16  # of one operand, through the factors of products of products


def _further(flow: Dataflow, step: Step, *, held: bool) -> Step | None:
    """The tensor from which the node was made, if it carries one alone."""
    node = step.node
    if node.op != "call_function":
        return None
    data = flow.data(node)
    passed = carrier(node, data, held=held)
    carried = data or values_read(node)  # a learned token carries no data, and has a way all the same
    if passed is None or len(carried) != 1 or (not data and passed is not Carrier.SHAPE):
        return None
    if Carrier.GATED in (step.strength, passed) and Carrier.MIXING in (step.strength, passed):
        return None
    return Step(carried[0], max(step.strength, passed))


_MATRIX_PRODUCTS = (aten.matmul, aten.mm, aten.bmm, aten.einsum)
PRODUCTS = (aten.mul, aten.div, *_MATRIX_PRODUCTS)  # of which a way may pass one factor


def _factors(flow: Dataflow, step: Step) -> list[fx.Node]:
    """The factors of a product of two tensors of data, of which a way may go on by either, with the other one held.

    Of a product element by element those that have its sizes; of a product of matrices, or its spelling as a sum of
    products that are spread, both.
    """
    node = step.node
    if step.strength > Carrier.GATED or node.op != "call_function":
        return []
    data = flow.data(node)
    if callee(node) is aten.sum and isinstance(node.args[0], fx.Node) and callee(node.args[0]) is aten.mul:
        data = flow.data(node.args[0])
        spread = len(data) == 2 and not any(same_shape(factor, node.args[0]) for factor in data)
        return [factor for factor in data if spread and _gates(flow, _other(data, factor))]
    if len(data) != 2:
        return []
    able = data
    if callee(node) is aten.div:
        able = [read for read in data if read is node.args[0]]
    elif callee(node) is aten.mul:
        able = [factor for factor in data if same_shape(factor, node)]
    elif callee(node) not in _MATRIX_PRODUCTS:
        return []
    gated = [factor for factor in able if callee(node) is aten.div or _gates(flow, _other(data, factor))]
    return [factor for factor in gated if not is_length(flow, _other(data, factor), factor)]


def _other(pair: Sequence[fx.Node], one: fx.Node) -> fx.Node:
    return pair[1] if pair[0] is one else pair[0]


def _gates(flow: Dataflow, factor: fx.Node) -> bool:
    """Whether a factor has passed a non-linearity since it was mixed last: of two that have not, neither is a gate."""
    seen, stack = {factor}, [factor]
    while stack:
        node = stack.pop()
        row = operator_of(node)
        divides = row.freeze is Frozen.DIVISION and len(node.args) > 1 and node.args[1] in flow.carries
        if node.op == "call_function" and (divides or row.attention is Attention.PATTERN or _activates(node)):
            return True
        # A sum or a mean of what has passed one has passed it, too; a matrix or a convolution mixes anew.
        if node.op == "call_function" and (not mixing(node) or callee(node) in (aten.sum, aten.mean)):
            fresh = [read for read in flow.data(node) if read not in seen]
            seen.update(fresh)
            stack += fresh
    return False


def _activates(node: fx.Node) -> bool:
    row = operator_of(node)
    return row.kind is Kind.POINTWISE and not row.affine and row.freeze is not Frozen.DETACH


def held_product(node: fx.Node) -> fx.Node:
    """The product whose factors `ways_up` tells apart: the node itself, or what it sums."""
    return node.args[0] if callee(node) is aten.sum and isinstance(node.args[0], fx.Node) else node


def through_one_factor(flow: Dataflow, way: Sequence[Step], fork: fx.Node) -> bool:
    """Whether of each product on a way one factor alone leads to the fork: x·x carries none."""
    for step, above in pairwise(way):
        data = flow.data(held_product(step.node))
        if len(data) < 2 or above.node not in data or not _factors(flow, Step(step.node, Carrier.SHAPE)):
            continue
        (other,) = (factor for factor in data if factor is not above.node)
        leading = chain.from_iterable(ways_up(flow, other, held=True))
        if fork in {one.node for one in leading}:
            return False
        if above.node is fork:
            break
    return True


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
    by_data, near = _met(flow, ends, data, ()), _met(flow, ends, learned, sums)
    return {end: by_data[end] | near[end] for end in ends}


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

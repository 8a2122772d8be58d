"""Where the way up from an operand leads that goes along a trunk: by the skips of blocks, and by what carries them.

An operand that leads to the fork is the trunk itself, read at another depth; one that leads to where another trunk
begins is the state of that trunk, and its sum with this one is a merge. Neither is a branch:

    h1 = h0 + f1(h0);  h2 = h1 + f2(h1)
    y = h0 + h1 + h2                       h1 and h2 lead to h0: one trunk, read three times
    y = a + b                              b leads to b0, which began before a: two trunks, merged
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import fx

from unbraid.discover._block_nodes import BlockNodes
from unbraid.discover._dataflow import Dataflow
from unbraid.discover._summands import summands
from unbraid.graph.questions import Carrier, carrier, values_read


@dataclass(frozen=True)
class TrunkWay:
    """The way up from an operand along a trunk.

    Attributes:
        end: where it can go no further.
        blocks: the sums of blocks that it passes.
        carried: whether it goes on from the operand at all.
    """

    end: fx.Node
    blocks: tuple[fx.Node, ...]
    carried: bool


def trunk_way(
    flow: Dataflow, blocks: Mapping[fx.Node, BlockNodes], node: fx.Node, weakest: Carrier, fork: fx.Node | None = None
) -> TrunkWay:
    """The one way up from an operand by skips of blocks and carriers of a single tensor, as far as a fork.

    Args:
        flow: the data flow of the graph.
        blocks: the blocks found so far, by their sums.
        node: the operand.
        weakest: the weakest carrier that the way may pass; behind the block of what was mixed nothing is mixed again.
        fork: where it stops, if it comes there.
    """
    passed, begin, mixed = list[fx.Node](), node, False
    while node is not fork:
        further = _further(flow, blocks, node, weakest)
        if further is None:
            break
        if node in blocks:
            passed.append(node)
            weakest = min(weakest, Carrier.SCALED) if mixed else weakest
        else:
            mixed |= carrier(node, flow.data(node)) is Carrier.MIXING
        node = further
    return TrunkWay(node, tuple(passed), node is not begin)


def _further(flow: Dataflow, blocks: Mapping[fx.Node, BlockNodes], node: fx.Node, weakest: Carrier) -> fx.Node | None:
    if node in blocks:
        return blocks[node].skip
    if node.op != "call_function":
        return None
    data = flow.data(node)
    carried = carrier(node, data) if len(data) == 1 else None
    return data[0] if carried is not None and carried <= weakest else None


def reads_trunk(
    flow: Dataflow, blocks: Mapping[fx.Node, BlockNodes], node: fx.Node, fork: fx.Node, mixed: bool
) -> bool:
    """Whether an operand leads to a fork by skips, scaled copies, and sums all of whose operands are states of trunks.

    So do an average of layers, and a stream into which the input was injected again; pool(x) − x does not.

    Args:
        flow: the data flow of the graph.
        blocks: the blocks found so far, by their sums.
        node: the operand.
        fork: the fork.
        mixed: whether the way may pass what mixes, too.
    """
    weakest = Carrier.MIXING if mixed else Carrier.SCALED
    # True where a node leads to the fork, None where it leads to what was there before, False where to neither.
    known: dict[fx.Node, bool | None] = {fork: True}
    stack, passed = [node], False
    while stack:
        current = stack[-1]
        if flow.order[current] < flow.order[fork]:
            known[current] = None
        further = [] if current in known else _all_further(flow, blocks, current, weakest)
        unknown = [above for above in further if above not in known]
        stack += unknown
        if unknown:
            continue
        stack.pop()
        if current not in known:
            passed |= current in blocks or len(further) > 1
            led = [known[above] for above in further]
            known[current] = False if not led or False in led else True if True in led else None
    return passed and known[node] is True


def _all_further(
    flow: Dataflow, blocks: Mapping[fx.Node, BlockNodes], node: fx.Node, weakest: Carrier
) -> list[fx.Node]:
    added = [below for below, _ in summands(node) if isinstance(below, fx.Node) and below in flow.carries]
    if node not in blocks and len(added) > 1:
        return added
    above = _further(flow, blocks, node, weakest)
    return [] if above is None else [above]


def leaves_by(flow: Dataflow, node: fx.Node, end: fx.Node) -> bool:
    """Whether all that a node is for passes an end that is computed from it, or is that end itself."""
    seen, stack = {node}, [node]
    while stack:
        node = stack.pop()
        if node is end:
            continue
        for user in node.users:
            if user in seen or node not in values_read(user):
                continue
            if user.op == "output" or flow.order[user] > flow.order[end]:
                return False
            seen.add(user)
            stack.append(user)
    return True


def reads_around(flow: Dataflow, node: fx.Node, part: fx.Node, whole: fx.Node) -> bool:
    """Whether a node is computed from a tensor other than through a part of it."""
    seen, stack, lowest = {node}, [node], flow.order[whole]
    while stack:
        for read in values_read(stack.pop()):
            if read is whole:
                return True
            if read is not part and read not in seen and flow.order[read] > lowest:
                seen.add(read)
                stack.append(read)
    return False


def only_first_begins_at(blocks: Mapping[fx.Node, BlockNodes], passed: Collection[fx.Node], fork: fx.Node) -> bool:
    """Whether of the blocks that a way passes one alone begins at the fork."""
    return sum(blocks[total].fork is fork for total in passed) == 1

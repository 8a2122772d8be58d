"""Which block lies inside which, and which sums are none because they only lie across others.

A block is *nested* in a branch if its sum reaches no output but through that branch's end, and if it begins inside the
branch, or where the branch's own block begins. That it begins inside another block and ends outside is no reason
against it: in a network whose trunks read each other they all do.

    a1 = a0 + F(b0)             a1 is read by the next block of its own trunk: F is no part of the block of G, though
    b1 = b0 + G(a1)             every way from b0 to G(a1) leads through it

An *offset* is no block. A bias of attention scores that every layer adds is added to scores that depend on it through
the stream: its sum leaves through one branch alone, begins outside of that branch at no block's sum, and what it is
added to depends on it only through sums outside of that branch. Nor is a *reading* one: two affine maps of what blocks
compute inside of their branches, which a head adds, are projections of no trunk.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from unbraid.discover._block_nodes import BlockNodes
from unbraid.discover._dataflow import Dataflow
from unbraid.discover._post_dominators import PostDominators
from unbraid.discover._trunk_reached import trunk_way
from unbraid.graph import SKIP, BranchIndex
from unbraid.graph.questions import Carrier, shape_only, values_read


@dataclass(frozen=True, eq=False)
class Nesting:
    """Blocks with the branches that hold them.

    Attributes:
        regions: the nodes of each operand: (block, −1) is the skip, (block, j) is branch j.
        parents: for each nested block the block and the branch that hold it.
        offsets: the blocks that are none.
    """

    regions: Mapping[BranchIndex, list[fx.Node]]
    parents: Mapping[int, BranchIndex]
    offsets: Collection[int]


def nesting(flow: Dataflow, blocks: Sequence[BlockNodes], through: PostDominators) -> Nesting:
    """Find out which block lies in which branch.

    Args:
        flow: the data flow of the graph.
        blocks: the blocks.
        through: the graph's post-dominators.
    """
    around = regions(flow, blocks, through)
    sums = {block.add: number for number, block in enumerate(blocks)}
    holding: dict[int, list[BranchIndex]] = {number: [] for number in range(len(blocks))}
    for (outer, operand), nodes in sorted(around.items(), key=lambda item: len(item[1])):
        for node in nodes if operand != SKIP else ():
            if sums.get(node, outer) != outer:
                holding[sums[node]].append((outer, operand))
    inside = {branch: set(nodes) for branch, nodes in around.items()}
    parents, offsets = dict[int, BranchIndex](), list[int]()
    for number, branches in holding.items():
        block = blocks[number]
        if block.kind == "projection" and _reads_branches(number, block, blocks, inside):
            offsets.append(number)
            continue
        for outer, operand in branches:
            if not through.passes(block.add, _outlet(blocks[outer], operand)):
                continue
            if block.fork in inside[outer, operand] or block.fork is blocks[outer].fork:
                parents[number] = outer, operand
                break
            # What is learned and added in two places of a branch, as the bias of a layer that runs twice, is no trunk.
            learned = block.fork not in flow.carries
            if learned or _is_offset(flow, block, inside[outer, operand], sums):
                offsets.append(number)
                break
    return Nesting(around, parents, offsets)


def _outlet(outer: BlockNodes, branch: int) -> fx.Node:
    """The end of a branch; a gate, whose derivative is the first branch's, reaches the sum through the skip, too."""
    gated = outer.kind in ("gate", "mix") and branch == 0
    return outer.add if gated else outer.branches[branch]


def regions(flow: Dataflow, blocks: Sequence[BlockNodes], through: PostDominators) -> dict[BranchIndex, list[fx.Node]]:
    """The nodes between the fork and each operand of each block, without those of trunks that lead on elsewhere.

    A branch that comes from another trunk alone has no way from the fork: what is computed for it alone is its own.
    """
    regions = {}
    sums = {block.add: number for number, block in enumerate(blocks)}
    states: set[fx.Node] | None = None  # few forms have a branch that asks for them
    for number, block in enumerate(blocks):
        for operand, end in block.operands:
            region = flow.region(block.fork, end)
            if not region and end is not block.fork and operand != SKIP:
                states = _states(flow, blocks) if states is None else states
                region = exclusive(flow, end, through, states)
            outlet = end if operand == SKIP else _outlet(block, operand)
            leaving = {n for n in region if sums.get(n, number) != number and not through.passes(n, outlet)}
            regions[number, operand] = _own(region, end, leaving, through, block.add) if leaving else region
    return regions


def _own(
    region: list[fx.Node], end: fx.Node, leaving: Collection[fx.Node], through: PostDominators, total: fx.Node
) -> list[fx.Node]:
    """What of a region leads to its end other than through sums that lead on elsewhere, and not elsewhere itself."""
    own = {end}
    for node in reversed(region):
        if node in leaving:
            continue
        if not own.isdisjoint(user for user in node.users if node in values_read(user)):
            own.add(node)
    behind = set(leaving)
    for node in region:
        if not behind.isdisjoint(values_read(node)):
            behind.add(node)
    return [n for n in region if n in own and not (n in behind and not through.passes(n, total))]


def _states(flow: Dataflow, blocks: Sequence[BlockNodes]) -> set[fx.Node]:
    """The sums that are states of a trunk that begins at no other block's: none of those inside a branch."""
    known = {block.add: block for block in blocks}
    behind = set[fx.Node]()  # what is computed from a block's sum
    for node in flow.graph.nodes:
        if any(read in known or read in behind for read in values_read(node)):
            behind.add(node)
    return {total for total in known if trunk_way(flow, known, total, Carrier.SCALED).end not in behind}


def exclusive(flow: Dataflow, end: fx.Node, through: PostDominators, closed: Collection[fx.Node] = ()) -> list[fx.Node]:
    """The nodes of data that are computed for one node alone, itself included, in order of execution.

    Args:
        flow: the data flow of the graph.
        end: the node.
        through: the graph's post-dominators.
        closed: nodes that are none of them, and what these are computed from.
    """
    inside, stack = {end}, [end]
    while stack:
        for read in values_read(stack.pop()):
            fresh = read not in inside and read not in closed and read in flow.reached and read.op != "placeholder"
            if fresh and through.passes(read, end):
                inside.add(read)
                stack.append(read)
    return sorted(inside, key=flow.order.__getitem__)


def _reads_branches(
    number: int, block: BlockNodes, blocks: Sequence[BlockNodes], inside: Mapping[BranchIndex, Collection[fx.Node]]
) -> bool:
    """Whether a sum begins inside another block's branch and ends outside of the block."""
    for (outer, operand), nodes in inside.items():
        begins = operand != SKIP and outer != number and block.fork in nodes and block.fork is not blocks[outer].fork
        if begins and block.add not in nodes and block.fork is not blocks[outer].branches[operand]:
            return True
    return False


def _is_offset(flow: Dataflow, block: BlockNodes, inside: set[fx.Node], sums: Collection[fx.Node]) -> bool:
    """Whether a block that ends in a branch, and begins outside of it, depends on its fork only around that branch."""
    begin = block.fork
    while begin not in sums and begin.op == "call_function" and shape_only(begin):
        begin = values_read(begin)[0]
    if begin in sums:
        return False
    outside = {node for node in sums if node not in inside}
    return any(not _depends(flow, block.fork, branch, outside) for branch in block.branches)


def _depends(flow: Dataflow, fork: fx.Node, end: fx.Node, closed: Collection[fx.Node]) -> bool:
    """Whether a way leads from a fork to an end that passes none of some nodes."""
    reached = {fork}
    for node in flow.region(fork, end):
        if node not in closed and not reached.isdisjoint(values_read(node)):
            reached.add(node)
    return end in reached

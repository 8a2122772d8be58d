"""From additions found in a graph to blocks: their order, nesting, names, and where the trunk goes between them.

The stream that reaches the output is what the last block hands on: its sum, and what the module that adds does to it
next (the ReLU of an original ResNet block, the norm of a post-norm transformer). The rest is the head.
"""

from dataclasses import dataclass
from functools import cached_property

from torch import fx

from unbraid.capture.provenance import scope
from unbraid.discover._block_names import Names
from unbraid.discover._block_nodes import BlockNodes
from unbraid.discover._dataflow import Dataflow
from unbraid.discover._nesting import nesting, regions
from unbraid.discover._post_dominators import PostDominators
from unbraid.graph import BranchIndex
from unbraid.graph.questions import name_of, shape_only, values_read


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The blocks of a model as nodes of its graph; top-level blocks first, each group in order of execution.

    Attributes:
        flow: the data flow of the graph.
        blocks: the blocks, numbered by their place.
        parents: for each nested block the number of the block and the branch, from 0, that hold it.
    """

    flow: Dataflow
    blocks: tuple[BlockNodes, ...]
    parents: dict[int, BranchIndex]

    @cached_property
    def regions(self) -> dict[BranchIndex, list[fx.Node]]:
        """The nodes of each operand: (block, −1) is the skip, (block, j) is branch j."""
        return regions(self.flow, self.blocks, PostDominators(self.flow.graph))

    @property
    def top_level(self) -> range:
        """The numbers of the blocks that lie in no other's branch."""
        return range(len(self.blocks) - len(self.parents))

    @cached_property
    def places(self) -> dict[fx.Node, tuple[int, int | None]]:
        """The innermost block of each node with the operand it serves: None where it serves several branches."""
        places: dict[fx.Node, tuple[int, int | None]] = {}
        for (block, operand), nodes in sorted(self.regions.items(), key=lambda item: -len(item[1])):
            for node in nodes:
                shared = node in places and places[node][0] == block
                places[node] = (block, None if shared else operand)
        return places

    @cached_property
    def ends(self) -> dict[int, fx.Node]:
        """For each top-level block the node at which its trunk operations P_k end: the next fork, if any."""
        ends = {}
        for block in self.top_level:
            add = self.blocks[block].add
            following = self.blocks[block + 1].fork if block + 1 in self.top_level else None
            direct = following is not None and (following is add or self._trunk_only(add, following))
            ends[block] = following if direct and following is not None else self._end_in_scope(add)
        return ends

    def _trunk_only(self, add: fx.Node, fork: fx.Node) -> bool:
        way = self.flow.region(add, fork)
        return bool(way) and all(node not in self.places for node in way)

    def _end_in_scope(self, add: fx.Node) -> fx.Node:
        """After the last block P_k is what the module that adds does next in a single line; the rest is the head."""
        node, home = add, scope(add)
        while home:
            users = [user for user in node.users if user in self.flow.carries]
            if len(users) != 1 or scope(users[0])[: len(home)] != home or len(self.flow.data(users[0])) != 1:
                break
            node = users[0]
        return node

    def after(self, block: int) -> tuple[str, ...]:
        """The operators of P_k, views left out."""
        if block not in self.ends:
            return ()
        way = self.flow.region(self.blocks[block].add, self.ends[block])
        return tuple(name_of(node) for node in way if not shape_only(node))

    def last(self, output: fx.Node) -> int | None:
        """The top-level block whose sum reaches this node without passing another block."""
        adds = {self.blocks[block].add: block for block in self.top_level}
        seen, stack, met = {output}, [output], []
        while stack:
            node = stack.pop()
            if node in adds:
                met.append(adds[node])
                continue
            for argument in values_read(node):
                if argument not in seen and argument in self.flow.reached:
                    seen.add(argument)
                    stack.append(argument)
        return max(met, default=None)

    @cached_property
    def names(self) -> list[tuple[str, tuple[str, ...]]]:
        """For each block its name and those of its branches."""
        return Names(self.flow, self.blocks, self.parents, self.regions).all()


def anatomy(flow: Dataflow, found: tuple[BlockNodes, ...]) -> Anatomy:
    """Order the blocks and find out which lie inside which."""
    blocks = sorted(found, key=lambda block: flow.order[block.add])
    parents = nesting(flow, blocks, PostDominators(flow.graph)).parents
    order = sorted(range(len(blocks)), key=lambda number: (number in parents, number))
    place = {number: position for position, number in enumerate(order)}
    return Anatomy(
        flow,
        tuple(blocks[number] for number in order),
        {place[inner]: (place[outer], operand) for inner, (outer, operand) in parents.items()},
    )

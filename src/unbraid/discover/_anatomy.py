"""From additions found in a graph to blocks: their order, nesting, names, and where the trunk goes between them.

The stream that reaches the output is what the last block hands on: its sum, and what the module that adds does to it
next (the ReLU of an original ResNet block, the norm of a post-norm transformer). The rest is the head. Where the head
reads several sums, of one trunk or of several, the stream is where they meet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, fx

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
        regions: the nodes of each operand: (block, −1) is the skip, (block, j) is branch j.
    """

    flow: Dataflow
    blocks: tuple[BlockNodes, ...]
    parents: dict[int, BranchIndex]
    regions: dict[BranchIndex, list[fx.Node]]

    @staticmethod
    def of_layers(flow: Dataflow, layers: tuple[BlockNodes, ...]) -> "Anatomy":
        """The layers of a plain network, one after the other: none lies in another."""
        return Anatomy(flow, layers, {}, regions(flow, layers, PostDominators(flow.graph)))

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
    def following(self) -> dict[int, list[int]]:
        """For each top-level block those that begin where the way from its sum leads outside of all branches."""
        begins: dict[fx.Node, list[int]] = {}
        for number in self.top_level:
            begins.setdefault(self.blocks[number].fork, []).append(number)
        return {number: self._following(number, begins) for number in self.top_level}

    def _following(self, block: int, begins: Mapping[fx.Node, list[int]]) -> list[int]:
        """The blocks at those forks to which the way leads outside of all branches, in their order.

        Asked of every fork, ways would be searched from each block to all later ones: the cube of the depth.
        """
        near = [node for node in self._outside(self.blocks[block].add) if node in begins and self._leads(block, node)]
        return sorted(other for node in near for other in begins[node] if other != block)

    def _outside(self, start: fx.Node) -> list[fx.Node]:
        """A node, and what is computed from it outside of branches and skips, no further than the next sums."""
        found, stack = {start}, [start]
        while stack:
            for user in stack.pop().users:
                if user not in found and user not in self.places and user not in self._sums:
                    found.add(user)
                    stack.append(user)
        return list(found)

    def _leads(self, block: int, fork: fx.Node) -> bool:
        add = self.blocks[block].add
        if fork is add:
            return True
        if self.flow.order[fork] < self.flow.order[add]:
            return False
        way = self.flow.region(add, fork)
        return bool(way) and all(node not in self.places and node not in self._sums for node in way)

    @cached_property
    def _sums(self) -> dict[fx.Node, int]:
        return {self.blocks[block].add: block for block in self.top_level}

    @cached_property
    def trunks(self) -> list[list[int]]:
        """The chains of top-level blocks; where two go on from one sum, the first to run goes on with its trunk."""
        trunks, at = list[list[int]](), dict[int, int]()
        before = {other: number for number in reversed(self.top_level) for other in self.following[number][:1]}
        for number in self.top_level:
            if number in before and trunks[at[before[number]]][-1] == before[number]:
                at[number] = at[before[number]]
                trunks[at[number]].append(number)
            else:
                at[number] = len(trunks)
                trunks.append([number])
        return trunks

    def trunk_of(self, block: int) -> int:
        """The trunk of a top-level block, or of that in which a block lies."""
        while block in self.parents:
            block, _ = self.parents[block]
        return next(number for number, chained in enumerate(self.trunks) if block in chained)

    @cached_property
    def ends(self) -> dict[int, fx.Node]:
        """For each top-level block the node at which its trunk operations P_k end: the next fork, if any."""
        return {
            block: self.blocks[self.following[block][0]].fork if self.following[block] else self._end_in_scope(block)
            for block in self.top_level
        }

    def _end_in_scope(self, block: int) -> fx.Node:
        """After the last block P_k is what the module that adds does next in a single line; the rest is the head."""
        node = self.blocks[block].add
        home = scope(node)
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

    def stream(self, output: fx.Node) -> fx.Node:
        """What the head reads: where the last sums that reach an output meet, or where the trunk of the only one ends.

        Args:
            output: the output that is explained.
        """
        seen, stack, met = {output}, [output], []
        while stack:
            node = stack.pop()
            if node in self._sums:
                met.append(node)
                continue
            for argument in values_read(node):
                if argument not in seen and argument in self.flow.reached:
                    seen.add(argument)
                    stack.append(argument)
        if len(met) > 1:
            return self._meeting(met, output)
        return self.ends[self._sums[met[0]] if met else max(self.top_level)]

    def _meeting(self, sums: list[fx.Node], output: fx.Node) -> fx.Node:
        """The first tensor through which all of them lead to an output."""
        through = PostDominators(self.flow.graph, output)
        meeting = through.common(sums)
        while meeting is not None and (meeting not in self.flow.carries or not _is_tensor(meeting)):
            meeting = through.next(meeting)
        return meeting or output

    @cached_property
    def names(self) -> list[tuple[str, tuple[str, ...]]]:
        """For each block its name and those of its branches."""
        return Names(self.flow, self.blocks, self.parents, self.regions).all()


def anatomy(flow: Dataflow, nodes: tuple[BlockNodes, ...]) -> Anatomy:
    """Order the blocks and find out which lie inside which."""
    blocks = sorted(nodes, key=lambda block: flow.order[block.add])
    nested = nesting(flow, blocks, PostDominators(flow.graph))
    order = sorted(range(len(blocks)), key=lambda number: (number in nested.parents, number))
    place = {number: position for position, number in enumerate(order)}
    return Anatomy(
        flow,
        tuple(blocks[number] for number in order),
        {place[inner]: (place[outer], operand) for inner, (outer, operand) in nested.parents.items()},
        {(place[block], operand): nodes for (block, operand), nodes in nested.regions.items()},
    )


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)

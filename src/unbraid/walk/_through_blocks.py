"""The part of a gradient that passes given blocks: the walk that writes a row a second time on entering a branch.

Cutting each block and differentiating again would cost K gradients; it is the check of one of them.
"""

from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import torch
from jaxtyping import Shaped
from torch import Tensor

from unbraid.graph import Add, Graph, Segment
from unbraid.walk._lengths import Lengths
from unbraid.walk._tape import Tape

# Blocks that a path passes through a branch, in ascending order; the empty set is every path.
BlockSet: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class BlockSetStack:
    """For each set of blocks the sum of the cotangents over all paths so far that pass a branch of each of them.

    Attributes:
        sets: the sets, all different.
        stack: the cotangents.
    """

    sets: tuple[BlockSet, ...]
    stack: Shaped[Tensor, "sets *stream"]


@dataclass(frozen=True)
class ThroughBlocks:
    """The algebra of the gradient through given blocks: one row for every set of at most `most` blocks.

    On entering a branch of block k the row of each set S that may grow is written a second time, for S ∪ {k}: K(K+3)/2
    branch products give the part of the gradient through each block of a chain.

    Attributes:
        graph: the graph that is walked.
        tape: a run of it.
        lengths: which branches count.
        most: the size of the largest sets.
        chunk: how many cotangents are pulled back at once; by default all.
    """

    graph: Graph
    tape: Tape
    lengths: Lengths
    most: int = 1
    chunk: int | None = None

    def seed(self, cotangent: Tensor) -> BlockSetStack:
        """At the output every path is in the row of the empty set alone."""
        return BlockSetStack(((),), cotangent[None])

    def plus(self, a: BlockSetStack, b: BlockSetStack) -> BlockSetStack:
        """The sum over the union of the sets."""
        if a.sets == b.sets:
            return BlockSetStack(a.sets, a.stack + b.stack)
        sets = tuple(dict.fromkeys((*a.sets, *b.sets)))
        return BlockSetStack(sets, _over(a, sets) + _over(b, sets))

    def enter(self, add: Add, operand: int, value: BlockSetStack) -> BlockSetStack:
        """Every path that enters a branch of block k passes k from now on."""
        stream = dict(add.operands)[operand]
        stack = add.part(operand, value.stack).to(self.graph.streams[stream].dtype)
        if not self.lengths.of(add, operand):
            return BlockSetStack(value.sets, stack)
        grows = [row for row, blocks in enumerate(value.sets) if len(blocks) < self.most]
        grown = tuple(tuple(sorted((*value.sets[row], add.block))) for row in grows)
        return BlockSetStack((*value.sets, *grown), torch.cat([stack, stack[grows]]))

    def pull(self, segment: Segment, values: tuple[BlockSetStack | None, ...]) -> tuple[BlockSetStack | None, ...]:
        """Every row through J^T."""
        sets = tuple(dict.fromkeys(chain.from_iterable(value.sets for value in values if value is not None)))
        stacks = tuple(None if value is None else _over(value, sets) for value in values)
        pulled = self.tape.pull(segment, stacks, self.chunk)
        return tuple(None if stack is None else BlockSetStack(sets, stack) for stack in pulled)


def _over(value: BlockSetStack, sets: tuple[BlockSet, ...]) -> Tensor:
    """The rows in the order of some sets: zeros where there was nothing."""
    if value.sets == sets:
        return value.stack
    place = {blocks: row for row, blocks in enumerate(sets)}
    stack = value.stack.new_zeros((len(sets), *value.stack.shape[1:]))
    stack[[place[blocks] for blocks in value.sets]] = value.stack
    return stack

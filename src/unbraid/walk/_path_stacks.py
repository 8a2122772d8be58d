"""Every single path: the walk that keeps the choices of each path beside its cotangent."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int16, Int64, Shaped
from torch import Tensor

from unbraid.graph import Add, Graph, Segment
from unbraid.walk._lengths import NOT_MET
from unbraid.walk._tape import Tape


@dataclass(frozen=True)
class PathStack:
    """One cotangent for each of P paths, with the choices that the path has made so far.

    Attributes:
        masks: for each path and block −2 (not met), −1 (the skip) or j ≥ 0 (branch j).
        stack: the cotangents.
    """

    masks: Int16[Tensor, "paths blocks"]
    stack: Shaped[Tensor, "paths *stream"]


@dataclass(frozen=True)
class Masks:
    """The algebra of single paths: the walk unfolds the tree of shared suffixes, about 2^(K+1) products in a chain.

    Attributes:
        graph: the graph that is walked.
        tape: a run of it.
        columns: the column of the mask for each block that is counted.
    """

    graph: Graph
    tape: Tape
    columns: Mapping[int, int]

    def seed(self, cotangent: Tensor) -> PathStack:
        """One path, which has met no block."""
        return PathStack(torch.full((1, len(self.columns)), NOT_MET, dtype=torch.int16, device="cpu"), cotangent[None])

    def plus(self, a: PathStack, b: PathStack) -> PathStack:
        """The paths of both; routes that made the same choices are one path, and add up."""
        if a.masks.equal(b.masks):
            return PathStack(a.masks, a.stack + b.stack)
        masks = torch.cat([a.masks, b.masks])
        unique, place = distinct(masks)
        stack = torch.cat([a.stack, b.stack])
        if len(unique) == len(masks):
            return PathStack(masks, stack)
        total = stack.new_zeros((len(unique), *stack.shape[1:]))
        return PathStack(unique, total.index_add_(0, place.to(stack.device), stack))

    def enter(self, add: Add, operand: int, value: PathStack) -> PathStack:
        """Write the choice into the block's column."""
        stream = dict(add.operands)[operand]
        masks = value.masks
        if add.block in self.columns:
            masks = masks.clone()
            masks[:, self.columns[add.block]] = operand
        return PathStack(masks, add.part(operand, value.stack).to(self.graph.streams[stream].dtype))

    def pull(self, segment: Segment, values: tuple[PathStack | None, ...]) -> tuple[PathStack | None, ...]:
        """Every path through J^T; paths that arrive at one output alone have zeros at the others."""
        live = [value for value in values if value is not None]
        alike = all(value.masks.equal(live[0].masks) for value in live)
        masks = live[0].masks if alike else distinct(torch.cat([value.masks for value in live]))[0]
        stacks = tuple(None if value is None else _aligned(value, masks) for value in values)
        return tuple(None if pulled is None else PathStack(masks, pulled) for pulled in self.tape.pull(segment, stacks))


def distinct(masks: Int16[Tensor, "paths blocks"]) -> tuple[Int16[Tensor, "distinct blocks"], Int64[Tensor, " paths"]]:
    """The different rows in ascending order, and for each row which of them it is.

    Rows are compared as numbers where 63 bits hold them: much faster than row by row.
    """
    base = int(masks.max()) - NOT_MET + 1 if masks.numel() else 1
    if base ** masks.shape[1] >= 2**63:
        return torch.unique(masks, dim=0, return_inverse=True)
    numbers = torch.zeros(len(masks), dtype=torch.int64, device="cpu")
    for column in masks.T:
        numbers.mul_(base).add_(column).sub_(NOT_MET)
    unique, place = torch.unique(numbers, return_inverse=True)
    first = torch.empty(len(unique), dtype=torch.int64, device="cpu").scatter_(
        0, place, torch.arange(len(masks), device="cpu")
    )
    return masks[first], place


def _aligned(value: PathStack, masks: Tensor) -> Tensor:
    if value.masks.equal(masks):
        return value.stack
    place = (value.masks[:, None] == masks[None]).all(dim=2).int().argmax(dim=1)
    stack = value.stack.new_zeros((len(masks), *value.stack.shape[1:]))
    stack[place] = value.stack
    return stack

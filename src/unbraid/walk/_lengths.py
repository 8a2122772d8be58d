"""What counts as the length of a path.

All additions are cut, nested ones too. Whether a block counts is decided here, when walking, not when cutting: one
graph serves the top-level view and the opened one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from unbraid.graph import SKIP, Add, BranchIndex

NOT_MET = -2  # in a mask: the path does not meet the block


@dataclass(frozen=True)
class Lengths:
    """How much a path's length grows as it enters a branch.

    Attributes:
        weights: for each block that is counted, the weight of each of its branches: 1, or 0 for a branch whose inner
            blocks are counted in its place. An addition of any other block is part of the computation around it.
    """

    weights: Mapping[int, tuple[int, ...]]

    @staticmethod
    def top_level(adds: tuple[Add, ...], blocks: tuple[int, ...]) -> "Lengths":
        """Every branch of the given blocks counts 1."""
        return Lengths({add.block: (1,) * len(add.branches) for add in adds if add.block in blocks})

    @staticmethod
    def opened(adds: tuple[Add, ...], parents: Mapping[int, BranchIndex]) -> "Lengths":
        """Every block counts, and a branch that holds blocks leaves the counting to them.

        Args:
            adds: the additions.
            parents: for each nested block the block and the branch, from 0, that hold it.
        """
        outer = set(parents.values())

        def weights(add: Add) -> tuple[int, ...]:
            return tuple(0 if (add.block, j) in outer else 1 for j in range(len(add.branches)))

        return Lengths({add.block: weights(add) for add in adds})

    def counts(self, add: Add) -> bool:
        """Whether the addition's block is counted."""
        return add.block in self.weights

    def of(self, add: Add, operand: int) -> int:
        """The length that a path gains by this operand: none by a skip."""
        return self.weights[add.block][operand] if operand != SKIP and self.counts(add) else 0

    @cached_property
    def columns(self) -> dict[int, int]:
        """The column of each counted block in a mask."""
        return {block: column for column, block in enumerate(sorted(self.weights))}

    def of_masks(self, masks: Shaped[Tensor, "paths blocks"]) -> Int64[Tensor, " paths"]:
        """The number of branches that each path passes."""
        total = torch.zeros(len(masks), dtype=torch.int64, device="cpu")
        for block, column in self.columns.items():
            by_choice = torch.tensor((0, 0, *self.weights[block]), device="cpu")  # not met, the skip, the branches
            total += by_choice[masks[:, column].long() - NOT_MET]
        return total

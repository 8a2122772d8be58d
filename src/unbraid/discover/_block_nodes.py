from dataclasses import dataclass

from torch import fx

from unbraid.discover.kinds import JoinKind, Skip
from unbraid.graph import SKIP


@dataclass(frozen=True, eq=False)
class BlockNodes:
    """One residual block, as nodes of the graph.

    Attributes:
        fork: the point from which skip and branches part; the skip itself where branches come from other trunks alone.
        add: the node that holds the sum.
        skip: the operand that is S_k h; None in a plain layer.
        branches: the operands that are f_{k,j}(h).
        kind: what S_k is.
        join: whether the operands are added or concatenated.
    """

    fork: fx.Node
    add: fx.Node
    skip: fx.Node | None
    branches: tuple[fx.Node, ...]
    kind: Skip
    join: JoinKind = "sum"

    @property
    def operands(self) -> tuple[tuple[int, fx.Node], ...]:
        """The operands, each with its number: −1 for the skip, j ≥ 0 for branch j."""
        skip = () if self.skip is None else ((SKIP, self.skip),)
        return (*skip, *enumerate(self.branches))

from dataclasses import dataclass

from torch import fx

from unbraid.form._block import Skip


@dataclass(frozen=True, eq=False)
class Found:
    """One residual block, as nodes of the graph.

    Attributes:
        fork: the point from which skip and branches part.
        add: the node that holds the sum.
        skip: the operand that is S_k h; None in a plain layer.
        branches: the operands that are f_{k,j}(h).
        kind: what S_k is.
    """

    fork: fx.Node
    add: fx.Node
    skip: fx.Node | None
    branches: tuple[fx.Node, ...]
    kind: Skip

    @property
    def operands(self) -> tuple[tuple[int, fx.Node], ...]:
        """The operands with their place in a path's mask: 0 for the skip, j for the j-th branch."""
        skip = () if self.skip is None else ((0, self.skip),)
        return skip + tuple(enumerate(self.branches, start=1))

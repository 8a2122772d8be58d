"""One residual block, as a form shows it: its name, its skip and branches, and the line of code that adds them."""

from collections.abc import Sequence
from dataclasses import dataclass

from unbraid.discover.kinds import JoinKind, Skip
from unbraid.graph import BranchIndex


@dataclass(frozen=True)
class Block:
    """One residual block, h ← P(S h + Σ_j f_j(h)).

    Attributes:
        index: its number; top-level blocks count from 0 in order of execution, nested ones from there on.
        name: the path of the module that it belongs to.
        skip: what S is: the identity; a projection; a gate, which multiplies elements by what the data decide; a mix
            of several streams by weights that the data decide; or nothing in a plain layer.
        join: whether skip and branches are added, or lie side by side: [S h, f(h)].
        branches: the name of each branch f_j.
        after: the names of the operators of P, what the trunk does between the addition and the next fork.
        nested: the blocks inside its branches.
        parent: the block and the branch, from 0, in which it lies, as `without` takes them; None at the top level.
        trunk: the number of its trunk; of a nested block that of the top-level block around it.
        shape: the sizes of the sum; a free size is the text of its symbol.
        parameters: how many numbers its branches and its skip learn.
        source: file and line of the addition in the model's own code, with folders.
    """

    index: int
    name: str
    skip: Skip
    join: JoinKind
    branches: tuple[str, ...]
    after: tuple[str, ...]
    nested: tuple["Block", ...]
    parent: BranchIndex | None
    trunk: int
    shape: tuple[int | str, ...]
    parameters: int
    source: str

    @property
    def where(self) -> str:
        """File and line of the addition, without folders: "modeling_gpt2.py:412"."""
        return self.source.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Trunk:
    """A chain of top-level blocks, each of which begins where the way from the last leads outside of all branches.

    Attributes:
        blocks: their indices, in order of execution.
        shape: the sizes of what it carries, behind its last block.
        source: the stream at which it begins.
    """

    blocks: tuple[int, ...]
    shape: tuple[int | str, ...]
    source: str


def every_block(top: Sequence[Block]) -> tuple[Block, ...]:
    """Top-level blocks and those inside their branches, by index."""
    blocks, waiting = list[Block](), list(top)
    while waiting:
        block = waiting.pop()
        blocks.append(block)
        waiting.extend(block.nested)
    return tuple(sorted(blocks, key=lambda block: block.index))

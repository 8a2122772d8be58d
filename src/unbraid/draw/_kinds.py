"""How the kinds of skips and joins are drawn: a gate and a concatenation have signs of their own, a map has a box."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from matplotlib.axes import Axes

from unbraid.draw._shapes import Point, beside, box, gate, plus
from unbraid.draw._style import INK, MUTED

__all__ = ["Kinds", "Shown", "check_blocks", "draw_join", "draw_skip", "kinds_of"]

_LETTERS = {"projection": "S", "mix": "R"}


@runtime_checkable
class Shown(Protocol):
    """What a diagram shows of a block; `unbraid.Block` has it."""

    @property
    def skip(self) -> str: ...
    @property
    def join(self) -> str: ...
    @property
    def trunk(self) -> int: ...


@dataclass(frozen=True)
class Kinds:
    """The kind of one block.

    Attributes:
        skip: "identity", "projection", "gate", "mix" or "none".
        join: "sum" or "concatenation".
        trunk: the number of its trunk.
    """

    skip: str = "identity"
    join: str = "sum"
    trunk: int = 0

    def equation(self, before: str, number: int) -> str:
        """What comes out of block `number`, from 1, in mathtext, of the stream named."""
        branch = f"f_{number}[{before}]"
        kept = {"identity": before, "none": "", "gate": rf"g_{number} \odot {before}"}.get(
            self.skip, f"{_LETTERS.get(self.skip, 'S')}_{number} {before}"
        )
        if not kept:
            return branch
        return f"{kept} + {branch}" if self.join == "sum" else f"[{kept}, {branch}]"


def check_blocks(count: int) -> None:
    """Raises ValueError unless 1 ≤ count ≤ 6: with more, the 2^k paths of the unravelled figure fit no page."""
    if not 1 <= count <= 6:
        raise ValueError(f"the figure shows 1 to 6 blocks; got {count}. More blocks have too many paths to draw: 2^K.")


def kinds_of(blocks: int | Sequence[Shown]) -> list[Kinds]:
    """The kinds of K plain blocks, identity and sum, or of the blocks given.

    Raises:
        ValueError: there are not 1 to 6, or they lie on several trunks.
    """
    check_blocks(blocks if isinstance(blocks, int) else len(blocks))
    if isinstance(blocks, int):
        return [Kinds()] * blocks
    if len({block.trunk for block in blocks}) > 1:
        raise ValueError("the figure shows one trunk; these blocks lie on several. Choose the blocks of one.")
    return [Kinds(block.skip, block.join) for block in blocks]


def draw_join(axes: Axes, center: Point, kinds: Kinds, *, radius: float = 0.13, color: str = INK) -> None:
    """Where skip and branch meet: a plus, or two bars side by side."""
    (plus if kinds.join == "sum" else beside)(axes, center, radius=radius, color=color)


def draw_skip(axes: Axes, center: Point, kinds: Kinds, number: int, *, size: float = 0.26, color: str = INK) -> None:
    """What a skip does to what it carries, on its wire; nothing where it is the identity."""
    if kinds.skip == "gate":
        gate(axes, center, radius=size / 2, color=color)
    elif kinds.skip in _LETTERS:
        name = rf"${_LETTERS[kinds.skip]}_{number}$"
        box(axes, center, name, color=MUTED, width=1.3 * size, height=size, size=max(6.0, 36 * size))

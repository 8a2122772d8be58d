"""The network as it was found: its blocks, its equation, and how well the two agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from unbraid.reports._content import Braid, Cell, Code, Column, Equation, Part, Section, Table, finite
from unbraid.reports._content import count as count_of

__all__ = ["BlockFacts", "NetworkFacts", "network"]


@runtime_checkable
class BlockFacts(Protocol):
    """What the table shows of a block; `unbraid.Block` has it."""

    @property
    def index(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def skip(self) -> str: ...
    @property
    def join(self) -> str: ...
    @property
    def branches(self) -> tuple[str, ...]: ...
    @property
    def after(self) -> tuple[str, ...]: ...
    @property
    def parameters(self) -> int: ...
    @property
    def where(self) -> str: ...


@dataclass(frozen=True)
class NetworkFacts:
    """A traced network.

    Attributes:
        name: what to call it.
        blocks: its top-level blocks in order of execution.
        paths: how many paths lead from the input to the output.
        error: the largest relative error measured between form and model, ‖a − b‖∞ / ‖b‖∞.
        dtype: the type in which that was measured, such as "float32".
        equation: in plain characters, and `latex`.
        python: code that gives the same.
        braid: the drawing that can be picked apart; None leaves it out.
        worth: what each block is worth, one column each: title, unit, one number per block.
    """

    name: str
    blocks: Sequence[BlockFacts]
    paths: int
    error: float
    dtype: str
    equation: str
    latex: str
    python: str = ""
    braid: Braid | None = None
    worth: Sequence[tuple[str, str, Sequence[float]]] = ()


def network(facts: NetworkFacts) -> Section:
    """The section on the network: blocks, equation, verification."""
    blocks = "1 residual block" if len(facts.blocks) == 1 else f"{len(facts.blocks)} residual blocks"
    finding = (
        f"{blocks} and {count_of(facts.paths)} paths from input to output were found in {facts.name}; put together "
        f"again, they give its output to a relative error of {facts.error:.1e} in {facts.dtype}."
    )
    columns = (
        Column("Block"),
        Column("Name"),
        Column("Skip"),
        Column("Branches"),
        Column("After the join"),
        Column("Parameters", format=","),
        *(Column(title, unit, ".4g") for title, unit, _ in facts.worth),
        Column("Joined at"),
    )
    rows: list[tuple[Cell, ...]] = []
    for place, block in enumerate(facts.blocks):
        branches, after = ", ".join(block.branches), ", ".join(block.after)
        worth = [finite(values[place]) for _, _, values in facts.worth]
        skip = block.skip if block.join == "sum" else f"{block.skip}, beside"
        rows.append((block.index, block.name, skip, branches, after, block.parameters, *worth, block.where))
    measured = Table(
        (Column("Check"), Column("Relative error", format=".2e")),
        [("form against model", facts.error)],
        "‖form − model‖∞ / ‖model‖∞ at the traced input.",
    )
    parts: list[Part] = [] if facts.braid is None else [facts.braid]
    parts.append(Table(columns, rows, "The blocks in order of execution."))
    parts += [Equation(facts.equation, facts.latex), measured]
    if facts.python:
        parts.append(Code(facts.python))
    return Section("The network", finding, parts)

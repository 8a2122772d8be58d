"""Along which steps terms travel to a stream: the additions, and the segments of trunk and skips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

from torch import Tensor

from unbraid.form import ResidualForm
from unbraid.graph import SKIP, Add, BranchIndex, Segment, makes

# What writes a term into the stream: the input or the trunk's constants, by name, a block, or one of its branches.
Writer: TypeAlias = str | int | BranchIndex
INPUT, CONSTANTS = "input", "constants"
By: TypeAlias = Literal["block", "branch", "head"]  # what is one term


def taken_by(form: ResidualForm, by: str, call: str) -> ResidualForm:
    """The form whose branches are the terms, or of which each block's sum to one.

    Raises:
        ValueError: by is none of the three, or heads are asked for and no branch shows any.
    """
    if by not in get_args(By):
        raise ValueError(f'{call}: by is "block", "branch" or "head"; {by!r} came.')
    return form.split("heads") if by == "head" else form


@dataclass(frozen=True, eq=False)
class Route:
    """The route of terms through a form.

    Attributes:
        form: the form.
    """

    form: ResidualForm

    def to(self, stream: str) -> list[Segment | Add]:
        """The additions, and the segments of trunk and skips behind the first fork, that lead to a stream, in order."""
        wanted, route = {stream}, list[Segment | Add]()
        for step in reversed(self.form.graph.steps):
            travels = step.block in self.top if isinstance(step, Add) else not self._behind.isdisjoint(step.outputs)
            if travels and not wanted.isdisjoint(makes(step)):
                wanted.update(self.carried(step))
                route.append(step)
        return route[::-1]

    def carried(self, step: Segment | Add) -> tuple[str, ...]:
        """The streams whose terms a step passes on: an addition's skip, a segment's inputs that data pass."""
        if isinstance(step, Add):
            return () if step.skip is None else (step.skip,)
        passing = zip(step.inputs, self.form.graph.passes(step), strict=True)
        return tuple(stream for stream, carries in passing if carries)

    @cached_property
    def top(self) -> frozenset[int]:
        """The numbers of the top-level blocks."""
        return frozenset(block.index for block in self.form.blocks)

    @cached_property
    def _behind(self) -> frozenset[str]:
        """The streams that a fork reaches along trunk and skips: from there on, terms are told apart."""
        forks = {add.fork for add in self.form.adds if add.block in self.top}
        behind: set[str] = set()
        for step in self.form.graph.steps:
            if isinstance(step, Add):
                if step.block in self.top:
                    behind.add(step.output)
            elif step.role != "branch" and any(s in behind or s in forks for s in step.inputs):
                behind.update(step.outputs)
        return frozenset(behind)


def parts_of(add: Add, by_branch: bool) -> dict[Writer, tuple[int, ...]]:
    """The branches of an addition, by what they write together, or each by itself."""
    there = [operand for operand, _ in add.operands if operand != SKIP]
    if by_branch and len(add.branches) > 1:
        return {(add.block, j): (j,) for j in there}
    return {add.block: (*there,)} if there else {}


def written(add: Add, branches: Sequence[int], values: Mapping[str, Tensor]) -> Tensor:
    """What some branches add to an addition's output."""
    streams = dict(add.operands)
    first, *more = (add.embedded(j, values[streams[j]]) for j in branches)
    return sum(more, start=first)


def names_of(form: ResidualForm, writers: tuple[Writer, ...]) -> tuple[str, ...]:
    """How the terms are called: input and constants as such, a block or a branch by its own name."""

    def called(writer: Writer) -> str:
        if isinstance(writer, str):
            return writer
        if isinstance(writer, tuple):
            block, branch = writer
            return form.blocks[block].branches[branch]
        return form.blocks[writer].name

    return tuple(map(called, writers))


def in_order(blocks: set[Writer]) -> tuple[Writer, ...]:
    """Blocks and branches as they are numbered."""
    return tuple(sorted(blocks, key=lambda writer: writer if isinstance(writer, tuple) else (writer, 0)))

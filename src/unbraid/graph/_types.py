"""What a model is once it is cut: streams, and steps that make streams from streams.

    h1 = h0 + f1(h0)          segment "f1": h0 → b1          add "h1": skip h0, branches (b1,)
    h2 = h1 + f2(h1)          segment "f2": h1 → b2          add "h2": skip h1, branches (b2,)
    y = W h2                  segment "head": h2 → y

- A *stream* is a tensor by name; *sources* are streams at which trunks begin.
- A *segment* is a piece of the model's code between streams. Its parameters are arguments, not attributes, so that the
  same segment runs with the model's own tensors, with frozen ones, on another device, or with ones read when needed.
- An *add* is a residual addition: a skip, branches, and which block it is. Where the model concatenates them, each
  operand has a span of the output to itself: a sum of tensors that are zero elsewhere, of which no zeros are kept.

The graph is a room of its own under `walk`, so that the walk can be tested on graphs built by hand, and a form can run,
count and freeze itself through the walk.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import torch

Role: TypeAlias = Literal["trunk", "skip", "branch"]
Code: TypeAlias = Callable[..., Any]
Order: TypeAlias = int | tuple[Any, ...]

BranchIndex: TypeAlias = tuple[int, int]  # (block, branch), both counted from 0
Removal: TypeAlias = int | BranchIndex  # what can be taken out of a form: all branches of a block, or one of them

SKIP = -1  # the number of a block's skip among its operands; branches count from 0


@dataclass(frozen=True)
class Stream:
    """A tensor that crosses a cut: the trunk, an encoder's output, a shared bias, an operand of an addition.

    Attributes:
        id: its name, unique in the graph.
        shape: its sizes; a symbolic size is the text of its expression ("s0").
        dtype: its element type.
    """

    id: str
    shape: tuple[int | str, ...] = ()
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, eq=False)
class Segment:
    """A piece of the computation between cuts: outputs = code(*inputs, *parameters).

    Attributes:
        id: its name, unique in the graph.
        inputs: the streams that it reads.
        outputs: the streams that it makes; with more than one, `code` returns a tuple.
        code: a function of the inputs' values and then of the parameters' values; it changes none of them.
        params: the names, in the state handed to a run, of the tensors that follow the inputs.
        role: whether it lies on the trunk, on a block's skip or in a block's branch.
        block: the innermost block whose skip or branch it is part of; None on the trunk.
        branch: which of the block's branches, counted from 0; None where it serves several, or none.
        size_only: the inputs that are read for their sizes alone: no data pass through them.
    """

    id: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    code: Code
    params: tuple[str, ...] = ()
    role: Role = "trunk"
    block: int | None = None
    branch: int | None = None
    size_only: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Add:
    """A residual addition, output = skip + Σ_j branch_j, of operands of one shape (Equation 11.4), or side by side.

    Attributes:
        block: the number of its block.
        fork: the stream from which skip and branches part.
        skip: the stream of S_k h; None in a plain layer, which has no skip (Equation 11.1).
        branches: the streams of f_{k,0}(h), f_{k,1}(h), ...; None in the place of a branch that was deleted.
        output: the stream of the sum.
        order: how the model's code brackets the sum, pairs of operands by their numbers: (0, −1) for f(h) + h,
            ((−1, 0), 1) for h + f(h) + g(h). Rounding and strides depend on it. Empty for the order of `operands`.
        along: of a concatenation the dimension, counted from the last, −1; None for a sum.
        spans: of a concatenation where skip and branches lie in the output, (start, length) for each.
        skip_deleted: whether it had a skip, which was deleted: no identity takes that one's place.
    """

    block: int
    fork: str
    skip: str | None
    branches: tuple[str | None, ...]
    output: str
    order: Order = ()
    along: int | None = None
    spans: tuple[tuple[int, int], ...] = ()
    skip_deleted: bool = False

    @property
    def operands(self) -> tuple[tuple[int, str], ...]:
        """The operands that are there, each with its number: −1 for the skip, j ≥ 0 for branch j."""
        operands = enumerate((self.skip, *self.branches), start=SKIP)
        return tuple((j, stream) for j, stream in operands if stream is not None)

    def part(self, operand: int, value: torch.Tensor) -> torch.Tensor:
        """What of a tensor of the output's sizes, or of a stack of them, belongs to an operand: all, or its span."""
        if self.along is None:
            return value
        start, length = self.spans[operand + 1]
        return value.narrow(self.along, start, length)

    def embedded(self, operand: int, value: torch.Tensor) -> torch.Tensor:
        """What an operand, or a stack of them, adds to the output: itself, or its span among zeros."""
        if self.along is None:
            return value
        start, length = self.spans[operand + 1]
        sizes = list(value.shape)
        sizes[self.along] = sum(count for _, count in self.spans)
        whole = value.new_zeros(sizes)
        whole.narrow(self.along, start, length).copy_(value)
        return whole

    def side_by_side(self, present: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """The concatenation of the operands that are there; zeros stand for the others."""
        assert self.along is not None, "a sum has no spans"
        like = next(iter(present.values()))
        parts = []
        for operand in sorted(range(len(self.spans)), key=lambda place: self.spans[place]):
            sizes = list(like.shape)
            sizes[self.along] = self.spans[operand][1]
            given = present.get(operand - 1)
            parts.append(like.new_zeros(sizes) if given is None else given)
        return torch.cat(parts, self.along)


Step: TypeAlias = Segment | Add


@dataclass(frozen=True, eq=False)
class Graph:
    """Segments and additions in order of execution, joined by streams.

    Attributes:
        streams: every stream, by its id.
        steps: the segments and additions, each after the makers of what it reads.
        inputs: the streams that the caller gives.
        sources: where the trunks begin: the first float tensors that carry data (an input image, an embedding).
        outputs: the streams that a run returns.

    Raises:
        ValueError: a stream is read before it is made, made twice, or unknown.
    """

    streams: Mapping[str, Stream]
    steps: tuple[Step, ...]
    inputs: tuple[str, ...]
    sources: tuple[str, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        available = set(self.inputs)
        for step in self.steps:
            if missing := [stream for stream in reads(step) if stream not in available]:
                raise ValueError(f"Graph: {_title(step)} reads {missing}, which no earlier step makes.")
            if twice := available.intersection(makes(step)):
                raise ValueError(f"Graph: {_title(step)} makes {sorted(twice)}, which an earlier step has made.")
            available.update(makes(step))
        if missing := [stream for stream in (*self.sources, *self.outputs) if stream not in available]:
            raise ValueError(f"Graph: {missing} are sources or outputs, but no step makes them.")
        if missing := sorted(available - self.streams.keys()):
            raise ValueError(f"Graph: {missing} have no Stream that describes them.")

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The segments in order of execution."""
        return tuple(step for step in self.steps if isinstance(step, Segment))

    @cached_property
    def adds(self) -> tuple[Add, ...]:
        """The residual additions in order of execution."""
        return tuple(step for step in self.steps if isinstance(step, Add))

    @cached_property
    def reached(self) -> frozenset[str]:
        """The streams whose values depend on a source, indices and masks that were computed from data included."""
        reached = set(self.sources)
        for step in self.steps:
            size_only = step.size_only if isinstance(step, Segment) else frozenset()
            if any(stream in reached and stream not in size_only for stream in reads(step)):
                reached.update(makes(step))
        return frozenset(reached)

    @cached_property
    def carried(self) -> frozenset[str]:
        """The floating-point streams that data reach. No gradient passes the integers on the way to some of them."""
        return frozenset(s for s in self.reached if differentiable(self.streams[s].dtype))

    def data(self, segment: Segment) -> tuple[bool, ...]:
        """For each input of a segment whether data pass through it as floating-point numbers."""
        return tuple(stream in self.carried and stream not in segment.size_only for stream in segment.inputs)

    def passes(self, segment: Segment) -> tuple[bool, ...]:
        """For each input of a segment whether data pass through it, be it as indices alone: so paths are counted."""
        return tuple(stream in self.reached and stream not in segment.size_only for stream in segment.inputs)

    @cached_property
    def makers(self) -> Mapping[str, Step]:
        """The step that makes each stream."""
        by_stream: dict[str, Step] = {}
        for step in self.steps:
            by_stream |= dict.fromkeys(makes(step), step)
        return by_stream

    @cached_property
    def last_reader(self) -> Mapping[str, int]:
        """The number of the last step that reads each stream: after it the stream's value can be let go."""
        last: dict[str, int] = {}
        for number, step in enumerate(self.steps):
            last |= dict.fromkeys(reads(step), number)
        return last


def differentiable(dtype: torch.dtype) -> bool:
    """Whether a gradient exists for tensors of this type."""
    return dtype.is_floating_point or dtype.is_complex


def reads(step: Step) -> tuple[str, ...]:
    """The streams that a step reads."""
    return step.inputs if isinstance(step, Segment) else tuple(stream for _, stream in step.operands)


def makes(step: Step) -> tuple[str, ...]:
    """The streams that a step makes."""
    return step.outputs if isinstance(step, Segment) else (step.output,)


def rewired(graph: Graph, steps: tuple[Step, ...]) -> Graph:
    """The graph with other steps, without what its outputs no longer need."""
    kept = needed(steps, graph.outputs)
    available = {*graph.inputs}.union(*map(makes, kept))
    return replace(graph, steps=kept, sources=tuple(source for source in graph.sources if source in available))


def subgraph(graph: Graph, outputs: tuple[str, ...], given: tuple[str, ...] = ()) -> Graph:
    """The part of a graph that computes some streams, from the graph's inputs and from other streams that are given.

    Given streams that carry data are sources of the part.
    """
    known = {*graph.inputs, *given}
    steps = needed(tuple(step for step in graph.steps if not known.issuperset(makes(step))), outputs)
    available = known.union(*map(makes, steps))
    return replace(
        graph,
        steps=steps,
        inputs=tuple(dict.fromkeys((*graph.inputs, *given))),
        sources=tuple(s for s in dict.fromkeys((*graph.sources, *given)) if s in available and s in graph.carried),
        outputs=outputs,
    )


def needed(steps: tuple[Step, ...], outputs: tuple[str, ...]) -> tuple[Step, ...]:
    """The steps on which the outputs depend; the rest is dead code."""
    wanted, kept = set(outputs), []
    for step in reversed(steps):
        if not wanted.isdisjoint(makes(step)):
            wanted.update(reads(step))
            kept.append(step)
    return tuple(reversed(kept))


def _title(step: Step) -> str:
    return f"segment {step.id!r}" if isinstance(step, Segment) else f"the addition of block {step.block}"

"""Numbers read from the streams of a form while it runs, without keeping the streams."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from operator import add as plus
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._progress import how_many, progress
from unbraid.form import ResidualForm
from unbraid.graph import SKIP, Add, BranchIndex, Graph, Removal, Segment, Step, Stream, differentiable, makes, needed
from unbraid.sweep import Batches, each_batch
from unbraid.walk import run

Over: TypeAlias = Literal["position", "example"]


@dataclass(frozen=True, eq=False)
class Reading:
    """One number for each vector of a batch, computed as soon as the streams are there.

    Attributes:
        streams: what it is computed from.
        code: the streams' values -> a tensor of numbers.
    """

    streams: tuple[str, ...]
    code: Callable[..., Tensor]


def read(form: ResidualForm, batches: Batches, readings: Sequence[Reading]) -> tuple[list[float], int]:
    """The mean of each reading over all vectors of all batches, in float64, and the number of examples.

    Raises:
        DataError: there is no batch, or one is no pair of inputs and labels.
    """
    graph, names = _with_readings(form.graph, readings)
    sums, counts, examples = [0.0] * len(names), [0] * len(names), 0
    with torch.no_grad(), progress("batches", how_many(batches)) as step:
        for batch in each_batch(form, batches):
            values = run(graph, form.state, form.inputs(batch.args, batch.kwargs))
            for number, name in enumerate(names):
                sums[number] += float(values[name].double().sum())
                counts[number] += values[name].numel()
            examples += batch.size
            step()
    return [total / count if count else float("nan") for total, count in zip(sums, counts, strict=True)], examples


@dataclass(frozen=True, eq=False)
class Change:
    """What a group of branches is given and what it makes of it.

    Attributes:
        streams: what both are computed from; the last is the sum of the last block.
        before: the values of these streams but the last -> what would be there without the group.
    """

    streams: tuple[str, ...]
    before: Callable[..., Tensor]

    def reading(self, code: Callable[[Tensor, Tensor], Tensor]) -> Reading:
        """A number for each vector before and after."""
        return Reading(self.streams, lambda *given: code(self.before(*given[:-1]), given[-1]))


def before_and_after(form: ResidualForm, group: Sequence[Removal]) -> Change | None:
    """What a group of branches is given and what it makes of it.

    Before is what the first block's addition would give without its branches of the group: with a whole block S_k h,
    its input where the skip is the identity, and in a concatenation that beside zeros. After is the sum of the last
    block. None where the two differ in shape, or where nothing stands in for the block.
    """
    adds = {add.block: add for add in form.adds}
    blocks = sorted(block for block, _ in branches_of(form, group))
    first, last = adds[blocks[0]], adds[blocks[-1]]
    gone = {branch for block, branch in branches_of(form, group) if block == first.block}
    kept = {operand: stream for operand, stream in first.operands if operand not in gone}
    if not kept and (first.along is not None or first.skip_deleted):
        return None
    chosen = [adds[block] for block in dict.fromkeys(blocks)]
    shape = form.streams[first.output if first.along is not None else next(iter(kept.values()), first.fork)].shape
    for add, following in pairwise(chosen):
        if following.along is not None and following.skip != add.output:
            return None  # a transition lies between
        shape = shape if following.along is None else form.streams[following.output].shape
    if shape != form.streams[last.output].shape:
        return None

    def before(*given: Tensor) -> Tensor:
        parts = [first.embedded(operand, value) for operand, value in zip(kept, given, strict=True)]
        return reduce(lambda value, add: add.embedded(SKIP, value), chosen[1:], reduce(plus, parts))

    if not kept:
        return Change((first.fork, last.output), lambda fork: fork)
    return Change((*kept.values(), last.output), before)


def branches_of(form: ResidualForm, group: Sequence[Removal]) -> tuple[BranchIndex, ...]:
    """A group as (block, branch) pairs; what the form is already without is left out."""
    adds = {add.block: add for add in form.adds}
    pairs: list[tuple[int, int]] = []
    for removal in group:
        block, branch = (removal, None) if isinstance(removal, int) else removal
        branches = adds[block].branches if block in adds else ()
        pairs += [(block, j) for j, stream in enumerate(branches) if stream is not None and branch in (None, j)]
    return tuple(pairs)


def follows(form: ResidualForm, block: int) -> int | None:
    """The block whose sum reaches another's skip with nothing but the trunk between; None where none or several do."""
    outputs = {add.output: add.block for add in form.adds if add.block < len(form.blocks)}
    makers: dict[str, Segment] = {}
    for segment in form.segments:
        makers |= dict.fromkeys(segment.outputs, segment)
    add = next(add for add in form.adds if add.block == block)
    waiting, seen, met = [add.skip or add.fork], set[str](), set[int]()
    while waiting:
        stream = waiting.pop()
        if stream in seen:
            continue
        seen.add(stream)
        if stream in outputs:
            met.add(outputs[stream])
        elif (maker := makers.get(stream)) is not None and maker.role != "branch":
            carrying = zip(maker.inputs, form.graph.data(maker), strict=True)
            waiting.extend(other for other, carries in carrying if carries)
    return met.pop() if len(met) == 1 else None


def vectors(stream: Float[Tensor, "batch *features"], over: Over) -> Float[Tensor, "*rows features"]:
    """A stream as vectors: [batch, positions, features] one per position, any other one per example."""
    return stream if stream.ndim == 3 and over == "position" else stream.flatten(1)


def cosine(a: Float[Tensor, "*rows features"], b: Float[Tensor, "*rows features"]) -> Float[Tensor, "*rows"]:
    """⟨a, b⟩ / (‖a‖ ‖b‖) in float64; 1 between two zero vectors, 0 between a zero vector and another.

    Complex numbers are two each.
    """
    a, b = (torch.view_as_real(x).flatten(-2).double() if x.is_complex() else x.double() for x in (a, b))
    norms = a.norm(dim=-1) * b.norm(dim=-1)
    same = (a == b).all(-1).to(a)
    return torch.where(norms > 0, (a * b).sum(-1) / norms.clamp_min(torch.finfo(a.dtype).tiny), same).clamp(-1, 1)


def gated(form: ResidualForm) -> tuple[Graph, Mapping[BranchIndex, str]]:
    """The graph with a stream of its own for each branch of each addition, which the addition alone reads."""
    steps: list[Step] = []
    gates, streams = dict[BranchIndex, str](), dict(form.streams)
    for step in form.graph.steps:
        if not isinstance(step, Add):
            steps.append(step)
            continue
        branches = list(step.branches)
        for j, stream in enumerate(branches):
            if stream is not None:
                gates[step.block, j] = branches[j] = name = f"gate of {step.block}, {j}"
                streams[name] = Stream(name, streams[stream].shape, streams[stream].dtype)
                steps.append(Segment(name, (stream,), (name,), _same))
        steps.append(replace(step, branches=tuple(branches)))
    return replace(form.graph, streams=streams, steps=tuple(steps)), gates


def _same(stream: Tensor) -> Tensor:
    if torch.is_grad_enabled() and not stream.requires_grad and differentiable(stream.dtype):
        return stream.detach().requires_grad_()  # nothing before it moves, ids say: the gradient begins here
    return stream.view_as(stream)


def _with_readings(graph: Graph, readings: Sequence[Reading]) -> tuple[Graph, list[str]]:
    """Each reading right after what it reads, so that a stream is let go as early as ever."""
    names = [f"reading {number}" for number in range(len(readings))]
    segments = [Segment(n, r.streams, (n,), r.code) for n, r in zip(names, readings, strict=True)]
    streams = {**graph.streams, **{name: Stream(name, ("batch",), torch.float64) for name in names}}
    available, steps, waiting = set(graph.inputs), [], segments
    for step in graph.steps:
        steps.append(step)
        available.update(makes(step))
        ready = [segment for segment in waiting if available.issuperset(segment.inputs)]
        waiting = [segment for segment in waiting if segment not in ready]
        steps.extend(ready)
    kept = needed(tuple(steps), tuple(names))
    outputs = set[str]().union(*map(makes, kept))
    sources = tuple(source for source in graph.sources if source in outputs or source in graph.inputs)
    return replace(graph, streams=streams, steps=kept, sources=sources, outputs=tuple(names)), names

"""One forward run, cut at every stream, so that each segment can be pulled back by itself.

Autograd records each segment as a graph of its own, from *leaves*, detached copies of its inputs, to *results*. To pull
a cotangent is one backward pass of that piece; a stack of cotangents is pulled by vmap, `chunk` at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from unbraid.graph import Add, Graph, Segment, differentiable, makes, reads
from unbraid.graph.operators import Kind, operator_of
from unbraid.graph.state import State, detached
from unbraid.walk._run import execute


@dataclass(frozen=True)
class Tape:
    """One forward run, cut at every stream, so that each segment can be pulled back by itself.

    Attributes:
        graph: what was run.
        values: the value of every stream.
        leaves: for each segment, its inputs that carry data, as leaves of a graph of their own.
        results: for each segment, its outputs as functions of those leaves.
    """

    graph: Graph
    values: Mapping[str, Any]
    leaves: Mapping[str, tuple[Tensor | None, ...]]
    results: Mapping[str, tuple[Tensor, ...]]

    def pull(
        self, segment: Segment, stacks: tuple[Tensor | None, ...], chunk: int | None = None
    ) -> tuple[Tensor | None, ...]:
        """A stack of cotangents through the transposed Jacobian of one segment, J^T g.

        Args:
            segment: the segment to pass.
            stacks: for each output None or a stack [n, *output]; n is the same for all.
            chunk: how many of the n are pulled at once; by default all.

        Returns:
            For each input None, where no data pass, or a stack [n, *input]: zeros where data pass and no gradient does,
            as at a detached tensor, in a region without gradients, or at an index.
        """
        live = [(place, leaf) for place, leaf in enumerate(self.leaves[segment.id]) if leaf is not None]
        pairs = [
            (result, stack)
            for result, stack in zip(self.results[segment.id], stacks, strict=True)
            if stack is not None and result.requires_grad and not is_nothing(stack)
        ]
        by_place: dict[int, Tensor | None] = {}
        if live and pairs:
            results, seeds = (list(side) for side in zip(*pairs, strict=True))
            pulled = _pull(results, [leaf for _, leaf in live], seeds, chunk, one_by_one(segment))
            by_place = {place: stack for (place, _), stack in zip(live, pulled, strict=True)}
        like = next(stack for stack in stacks if stack is not None)
        return tuple(
            None if not passes else _or_nothing(by_place.get(place), like, self.values[stream])
            for place, (stream, passes) in enumerate(zip(segment.inputs, self.graph.passes(segment), strict=True))
        )


def record(graph: Graph, state: State, inputs: Mapping[str, Any]) -> Tape:
    """Run the graph and keep what pulling back needs: about the memory of a forward run that trains."""
    values = {stream: _data(value) for stream, value in inputs.items()}
    fixed = detached(state)
    leaves: dict[str, tuple[Tensor | None, ...]] = {}
    results: dict[str, tuple[Tensor, ...]] = {}
    for step in graph.steps:
        if isinstance(step, Add):
            outputs = execute(step, fixed, values)
        else:
            leaves[step.id] = tuple(
                values[stream].detach().requires_grad_() if carries else None
                for stream, carries in zip(step.inputs, graph.data(step), strict=True)
            )
            fed = {s: leaf for s, leaf in zip(reads(step), leaves[step.id], strict=True) if leaf is not None}
            with torch.enable_grad():
                results[step.id] = outputs = execute(step, fixed, {**values, **fed})
        values.update(zip(makes(step), map(_data, outputs), strict=True))
    return Tape(graph, values, leaves, results)


@dataclass(frozen=True)
class Cotangents:
    """The algebra of plain cotangents: the walk gives the gradient, as autograd does.

    Attributes:
        graph: the graph that is walked.
        tape: a run of it.
    """

    graph: Graph
    tape: Tape

    def plus(self, a: Tensor, b: Tensor) -> Tensor:
        """A + b."""
        return a + b

    def enter(self, add: Add, operand: int, value: Tensor) -> Tensor:
        """The same cotangent for every operand of a sum, its span of it beside others; in the operand's own type."""
        stream = dict(add.operands)[operand]
        return add.part(operand, value).to(self.graph.streams[stream].dtype)

    def pull(self, segment: Segment, values: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        """J^T g."""
        stacks = tuple(None if value is None else value[None] for value in values)
        return tuple(None if pulled is None else pulled[0] for pulled in self.tape.pull(segment, stacks))


def nothing(like: Tensor, *sizes: int) -> Tensor:
    """Zeros without memory."""
    return like.new_zeros(()).expand(sizes)


def is_nothing(stack: Tensor) -> bool:
    """Whether a stack is such zeros, which need not be pulled any further."""
    return stack.numel() > 0 and not any(stack.stride()) and not bool(stack[(0,) * stack.ndim])


def _or_nothing(stack: Tensor | None, like: Tensor, value: Any) -> Tensor:
    """What was pulled to an input, or zeros of its type; whole numbers have gradients of none, which are zeros, too."""
    if stack is not None:
        return stack
    floats = isinstance(value, Tensor) and differentiable(value.dtype)
    return nothing(value if floats else like, len(like), *(value.shape if isinstance(value, Tensor) else ()))


def _data(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def one_by_one(segment: Segment) -> bool:
    """Whether a loop over cotangents beats a batch: so it does for convolutions on a CPU, which vmap unfolds."""
    if not isinstance(segment.code, fx.GraphModule):
        return False
    return any(
        operator_of(node).kind is Kind.CONVOLUTION for node in segment.code.graph.nodes if node.op == "call_function"
    )


def _pull(
    results: list[Tensor], leaves: list[Tensor], seeds: list[Tensor], chunk: int | None, loop: bool
) -> list[Tensor | None]:
    """A stack of cotangents by calls of autograd, `chunk` at a time; a single one needs no vmap."""
    count = len(seeds[0])
    size = 1 if loop and not results[0].is_cuda else min(chunk or count, count)
    stacks: list[Tensor | None] = [None] * len(leaves)
    for begin in range(0, count, size):
        pulled = _grad(results, leaves, [seed[begin : begin + size] for seed in seeds])
        if size >= count:
            return pulled
        # Each part is put in its place while it is warm: joined at the end, all of them would be read once more.
        for place, part in enumerate(pulled):
            if part is not None and stacks[place] is None:
                stacks[place] = (part.new_zeros if begin else part.new_empty)((count, *part.shape[1:]))
            whole = stacks[place]
            if whole is not None:
                whole[begin : begin + size] = 0 if part is None else part
    return stacks


def _grad(results: list[Tensor], leaves: list[Tensor], seeds: list[Tensor]) -> list[Tensor | None]:
    alone = len(seeds[0]) == 1
    pulled = torch.autograd.grad(
        results,
        leaves,
        [seed[0] for seed in seeds] if alone else seeds,
        retain_graph=True,
        allow_unused=True,
        is_grads_batched=not alone,
    )
    return [g if g is None or not alone else g[None] for g in pulled]

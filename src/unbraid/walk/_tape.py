from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from unbraid.graph import Add, Graph, Segment, makes, name_of, reads
from unbraid.walk._run import execute
from unbraid.walk._state import State, detached


@dataclass(frozen=True)
class Tape:
    """One forward run, cut at every stream, so that each segment can be pulled back by itself.

    Attributes:
        values: the value of every stream.
        leaves: for each segment, its inputs that carry data, as leaves of a graph of their own.
        results: for each segment, its outputs as functions of those leaves.
    """

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
            For each input None, where nothing passes, or a stack [n, *input].
        """
        leaves = [leaf for leaf in self.leaves[segment.id] if leaf is not None]
        pairs = [
            (result, stack)
            for result, stack in zip(self.results[segment.id], stacks, strict=True)
            if stack is not None and result.requires_grad
        ]
        if not leaves or not pairs:
            return (None,) * len(segment.inputs)
        results, seeds = (list(side) for side in zip(*pairs, strict=True))
        pulled = iter(_pull(results, leaves, seeds, chunk, one_by_one(segment)))
        return tuple(None if leaf is None else next(pulled) for leaf in self.leaves[segment.id])


def record(graph: Graph, state: State, inputs: Mapping[str, Any]) -> Tape:
    """Run the graph and keep what pulling back needs: about the memory of a forward run that trains."""
    values = {stream: _data(value) for stream, value in inputs.items()}
    fixed = detached(state)
    leaves: dict[str, tuple[Tensor | None, ...]] = {}
    results: dict[str, tuple[Tensor, ...]] = {}
    for step in graph.steps:
        if isinstance(step, Add):
            made = execute(step, fixed, values)
        else:
            leaves[step.id] = tuple(
                values[stream].detach().requires_grad_() if carries else None
                for stream, carries in zip(step.inputs, graph.data(step), strict=True)
            )
            fed = {s: leaf for s, leaf in zip(reads(step), leaves[step.id], strict=True) if leaf is not None}
            with torch.enable_grad():
                results[step.id] = made = execute(step, fixed, {**values, **fed})
        values.update(zip(makes(step), map(_data, made), strict=True))
    return Tape(values, leaves, results)


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
        """The same cotangent for every operand, in the operand's own type."""
        stream = dict(add.operands)[operand]
        return value.to(self.graph.streams[stream].dtype)

    def pull(self, segment: Segment, values: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        """J^T g."""
        stacks = tuple(None if value is None else value[None] for value in values)
        return tuple(None if pulled is None else pulled[0] for pulled in self.tape.pull(segment, stacks))


def _data(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def one_by_one(segment: Segment) -> bool:
    """Whether a loop over cotangents beats a batch: so it does for convolutions on a CPU, which vmap unfolds."""
    if not isinstance(segment.code, fx.GraphModule):
        return False
    return any("conv" in name_of(node) for node in segment.code.graph.nodes if node.op == "call_function")


def _pull(
    results: list[Tensor], leaves: list[Tensor], seeds: list[Tensor], chunk: int | None, loop: bool
) -> list[Tensor | None]:
    """A stack of cotangents by calls of autograd, `chunk` at a time; a single one needs no vmap."""
    count = len(seeds[0])
    size = 1 if loop and not results[0].is_cuda else min(chunk or count, count)
    parts = [_grad(results, leaves, [s[i : i + size] for s in seeds]) for i in range(0, count, size)]
    if len(parts) == 1:
        return parts[0]
    stacked = zip(*parts, strict=True)
    return [None if rows[0] is None else torch.cat([r for r in rows if r is not None]) for rows in stacked]


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

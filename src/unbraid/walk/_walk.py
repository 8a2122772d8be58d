from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar, runtime_checkable

from unbraid.graph import Add, Graph, Segment

V = TypeVar("V")


@runtime_checkable
class Algebra(Protocol[V]):
    """What the backward walk carries, and the three things that happen to it on the way."""

    def plus(self, a: V, b: V) -> V:
        """Join what arrives at one stream from two readers."""
        ...

    def enter(self, add: Add, operand: int, value: V) -> V:
        """Pass an addition through one of its operands: 0 for the skip, j for the j-th branch."""
        ...

    def pull(self, segment: Segment, values: tuple[V | None, ...]) -> tuple[V | None, ...]:
        """Pass a segment: from values at its outputs to values at its inputs, None where nothing passes."""
        ...


def walk(graph: Graph, algebra: Algebra[V], seeds: Mapping[str, V], at: Iterable[str]) -> dict[str, V]:
    """Carry values from the outputs back to earlier streams, over all paths at once.

    At an addition h = S h' + Σ_j f_j(h') the value goes to every operand, g ← S^T g + Σ_j J_j^T g; streams with
    several readers sum what comes back (Equation 11.6 read from right to left).

    Args:
        graph: the graph, walked once from its last step to its first.
        algebra: what is carried.
        seeds: the values to begin with, by stream.
        at: the streams at which the value is wanted.

    Returns:
        The value at each stream of `at` that the walk reaches. Nothing passes a source to what lies before it.
    """
    wanted, pending, found = set(at), dict(seeds), dict[str, V]()
    sources = set(graph.sources)

    def give(stream: str, value: V) -> None:
        pending[stream] = algebra.plus(pending[stream], value) if stream in pending else value

    def take(stream: str) -> V | None:
        value = pending.pop(stream, None)
        if value is not None and stream in wanted:
            found[stream] = value
        return None if stream in sources else value

    for step in reversed(graph.steps):
        if isinstance(step, Add):
            total = take(step.output)
            if total is not None:
                for operand, stream in step.operands:
                    give(stream, algebra.enter(step, operand, total))
        else:
            values = tuple(take(stream) for stream in step.outputs)
            if any(value is not None for value in values):
                for stream, pulled in zip(step.inputs, algebra.pull(step, values), strict=True):
                    if pulled is not None:
                        give(stream, pulled)
    for stream in graph.inputs:
        take(stream)
    return found

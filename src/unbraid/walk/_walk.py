"""The one backward walk, for whatever is carried back: an `Algebra` says what happens to it on the way.

With cotangents it is back-propagation; with polynomials of cotangents, a gradient by path length; with integers, the
number of paths; with masks, every path by itself.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar, runtime_checkable

from unbraid.graph import Add, Graph, Segment, Step, makes

V = TypeVar("V")


@runtime_checkable
class Algebra(Protocol[V]):
    """What the backward walk carries, and the three things that happen to it on the way."""

    def plus(self, a: V, b: V) -> V:
        """Join what arrives at one stream from two readers."""
        ...

    def enter(self, add: Add, operand: int, value: V) -> V:
        """Pass an addition through one of its operands: −1 for the skip, j ≥ 0 for branch j."""
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
    wanted, pending, reached = set(at), dict(seeds), dict[str, V]()
    for step in reversed(graph.steps):
        # A stream's value is complete once its maker is reached: every reader comes later.
        reached.update({stream: pending[stream] for stream in makes(step) if stream in wanted and stream in pending})
        pass_back(graph, algebra, step, pending)
    reached.update({stream: pending[stream] for stream in graph.inputs if stream in wanted and stream in pending})
    return reached


def pass_back(graph: Graph, algebra: Algebra[V], step: Step, pending: dict[str, V]) -> None:
    """Carry what waits at a step's outputs to its inputs; what waits at a source that the step makes is dropped."""
    values = tuple(None if stream in graph.sources else pending.get(stream) for stream in makes(step))
    for stream in makes(step):
        pending.pop(stream, None)
    if all(value is None for value in values):
        return
    if isinstance(step, Add):
        (total,) = values
        assert total is not None
        pulled = [(stream, algebra.enter(step, operand, total)) for operand, stream in step.operands]
    else:
        through = zip(step.inputs, algebra.pull(step, values), strict=True)
        pulled = [(stream, value) for stream, value in through if value is not None]
    for stream, value in pulled:
        pending[stream] = algebra.plus(pending[stream], value) if stream in pending else value

"""Run a graph forward, letting go of each stream after its last reader."""

from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from itertools import chain
from operator import add
from typing import Any

from unbraid.graph import Add, Graph, Order, Step, makes, reads
from unbraid.graph.state import State, rereading


def run(
    graph: Graph,
    state: State,
    inputs: Mapping[str, Any],
    *,
    keep: Iterable[str] = (),
    seen: Callable[[str, Any], None] | None = None,
) -> dict[str, Any]:
    """Compute the graph's outputs, letting go of each stream after its last reader.

    Args:
        graph: what to compute.
        state: the parameters, buffers and constants that the segments name.
        inputs: a value for each of the graph's input streams.
        keep: further streams whose values are wanted.
        seen: called with each stream and its value, inputs first, as soon as there is one.

    Returns:
        The values of the outputs and of `keep`, by stream.
    """
    wanted = {*graph.outputs, *keep}
    values = dict(inputs)
    _show(inputs, values, seen)
    for number, step in enumerate(graph.steps):
        values.update(zip(makes(step), execute(step, state, values), strict=True))
        _show(makes(step), values, seen)
        for stream in reads(step):
            if graph.last_reader[stream] == number and stream not in wanted:
                values.pop(stream, None)
    return {stream: values[stream] for stream in wanted}


def _show(streams: Iterable[str], values: Mapping[str, Any], seen: Callable[[str, Any], None] | None) -> None:
    if seen is not None:
        for stream in streams:
            seen(stream, values[stream])


def execute(step: Step, state: State, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """One step: a segment's code, or an addition's sum in the model's own order."""
    operands = [values[stream] for stream in reads(step)]
    if isinstance(step, Add):
        if step.along is not None:
            return (step.side_by_side({operand: values[stream] for operand, stream in step.operands}),)
        return (_sum(step, values) if step.order else reduce(add, operands),)
    weights = {name: state[name] for name in step.params}
    with rereading(state, weights):
        result = step.code(*operands, *weights.values())
    return tuple(result) if len(step.outputs) > 1 else (result,)


def _sum(step: Add, values: Mapping[str, Any]) -> Any:
    """The operands that are there, added as the model brackets them."""
    present = {number: values[stream] for number, stream in step.operands}
    (total,) = _bracketed(step.order, present)
    return total


def _bracketed(order: Order, present: Mapping[int, Any]) -> list[Any]:
    # No closure: one that calls itself is a cycle, which would hold the values until the collector comes by.
    if isinstance(order, int):
        return [present[order]] if order in present else []
    parts = list(chain.from_iterable(_bracketed(inner, present) for inner in order))
    return [reduce(add, parts)] if parts else []

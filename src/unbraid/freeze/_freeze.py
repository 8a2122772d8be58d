"""A graph as the affine map that equals it at one input: every non-linear factor held at its value.

Segment by segment: each is run and recorded (`_recording`), and written anew by the rules (`_freezer`). What is held,
gates, scales and patterns, joins the state.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from unbraid.freeze._freezer import Freezer
from unbraid.freeze._recording import Recorder
from unbraid.freeze._rules import RULES
from unbraid.graph import Add, Graph, Segment, makes, reads, runnable
from unbraid.graph.state import State, joined
from unbraid.walk import execute


def freeze(
    graph: Graph,
    state: State,
    inputs: Mapping[str, Any],
    segments: Iterable[str] | None = None,
    seen: Callable[[str, Any], object] | None = None,
) -> tuple[Graph, State]:
    """Hold every non-linear factor at its value, so that each segment is affine and equals the model at this input.

    An activation becomes φ(0) + gate·z; a norm freezes its scale; attention keeps its pattern; maxima keep their
    choice; of a product of two factors that carry data the one that passed a non-linearity since its last mixing
    operation is held, and if neither or both did, the product splits in halves.

    Args:
        graph: the graph to freeze.
        state: its parameters.
        inputs: where to freeze it.
        segments: the ids of the segments to freeze; by default all that carry data.
        seen: called with each stream and its value, which is let go of after its last reader.

    Returns:
        The frozen graph, with the old streams, additions and blocks, and its state: the old one and what is held.

    Raises:
        InexactError: an operator has no rule; it names the operator and its module.
    """
    chosen = None if segments is None else set(segments)
    values, held, steps = dict(inputs), dict[str, Tensor](), []
    # Streams that carry data, each with its level; what a frozen segment makes constant is not among them.
    levels = dict.fromkeys((s for s in graph.inputs if s in graph.carried), 0)
    with torch.no_grad():
        for number, step in enumerate(graph.steps):
            arriving = [levels[stream] for stream in reads(step) if stream in levels]
            if isinstance(step, Segment) and arriving and (chosen is None or step.id in chosen):
                step, outputs, constants, outcome = _frozen(graph, step, state, values, levels)
                held |= constants
            else:
                outputs = execute(step, state, values)
                if isinstance(step, Segment) and any(graph.data(step)) and (chosen is None or step.id in chosen):
                    step, constants = _constant(step, outputs)
                    held |= constants
                level = max(arriving) if isinstance(step, Add) and arriving else 0
                outcome = [level if arriving else None for _ in makes(step)]
            steps.append(step)
            values.update(zip(makes(step), outputs, strict=True))
            if seen is not None:
                for stream, value in zip(makes(step), outputs, strict=True):
                    seen(stream, value)
            for stream in reads(step):
                if graph.last_reader[stream] == number:
                    values.pop(stream, None)
            for stream, reached in zip(makes(step), outcome, strict=True):
                if stream in graph.sources or (reached is not None and stream in graph.carried):
                    levels[stream] = reached or 0
    return replace(graph, steps=tuple(steps)), joined(state, held)


def _constant(segment: Segment, outputs: tuple[Any, ...]) -> tuple[Segment, dict[str, Tensor]]:
    """A segment of which the rules have made all inputs constant, as a constant: what it gave, whatever it reads."""
    names = [f"{segment.id}.held.{number}" for number in range(len(outputs))]
    graph = fx.Graph()
    for stream in segment.inputs:
        graph.placeholder(stream)
    held = [graph.placeholder(f"held_{number}") for number in range(len(outputs))]
    graph.output(held[0] if len(held) == 1 else tuple(held))
    code = runnable(graph, f"held_{segment.id}")
    return replace(segment, code=code, params=tuple(names)), dict(zip(names, outputs, strict=True))


def _frozen(
    graph: Graph, segment: Segment, state: State, values: Mapping[str, Any], levels: Mapping[str, int]
) -> tuple[Segment, tuple[Any, ...], dict[str, Tensor], list[int | None]]:
    """The frozen segment, what the segment makes, the tensors held, and the level of each output (None: constant)."""
    code = segment.code if isinstance(segment.code, fx.GraphModule) else fx.symbolic_trace(segment.code)
    recorder = Recorder(code)
    result = recorder.run(*(values[s] for s in segment.inputs), *(state[name] for name in segment.params))
    placeholders = [node for node in code.graph.nodes if node.op == "placeholder"]
    by_stream = dict(zip(segment.inputs, placeholders, strict=False))
    carrying = {
        node: levels[stream]
        for stream, node in by_stream.items()
        if stream in levels and stream not in segment.size_only
    }
    constant = {node for stream, node in by_stream.items() if stream in graph.carried - levels.keys()}
    freezer = Freezer(code, recorder.recording, carrying, constant, segment.id, RULES)
    affine, constants = freezer.run()
    names = [f"{segment.id}.held.{number}" for number in range(len(constants))]
    frozen = replace(
        segment,
        code=runnable(affine, f"frozen_{segment.id}"),
        params=(*segment.params, *names),
    )
    outputs = tuple(result) if len(segment.outputs) > 1 else (result,)
    outcome = freezer.outcome()
    # Graphs of fx hold one another in circles: left to the collector, the segment's parameters would stay for a while.
    recorder.recording.values.clear()
    recorder.env.clear()
    return frozen, outputs, dict(zip(names, constants, strict=True)), outcome

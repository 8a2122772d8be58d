from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from unbraid.graph import Add, Graph, Segment, makes, reads
from unbraid.walk._freezer import Freezer
from unbraid.walk._run import State, execute


def freeze(
    graph: Graph, state: State, inputs: Mapping[str, Any], segments: Iterable[str] | None = None
) -> tuple[Graph, dict[str, Tensor]]:
    """Hold every non-linear factor at its value, so that each segment is affine and equals the model at this input.

    An activation becomes φ(0) + gate·z; a norm freezes its scale; attention keeps its pattern; maxima keep their
    choice; of a product of two factors that carry data the one that passed a non-linearity since its last mixing
    operation is held, and if neither or both did, the product splits in halves.

    Args:
        graph: the graph to freeze.
        state: its parameters.
        inputs: where to freeze it.
        segments: the ids of the segments to freeze; by default all that carry data.

    Returns:
        The frozen graph, with the old streams, additions and blocks, and its state: the old one and what is held.

    Raises:
        InexactError: an operator has no rule; it names the operator and its module.
    """
    chosen = None if segments is None else set(segments)
    values, held, steps = dict(inputs), dict(state), []
    with torch.no_grad():
        for step in graph.steps:
            carries = not graph.carried.isdisjoint(reads(step))
            if isinstance(step, Add) or not carries or (chosen is not None and step.id not in chosen):
                made = execute(step, state, values)
                steps.append(step)
            else:
                frozen, made, constants = _frozen(graph, step, state, values)
                held |= constants
                steps.append(frozen)
            values.update(zip(makes(step), made, strict=True))
    return replace(graph, steps=tuple(steps)), held


class _Recorder(fx.Interpreter):
    """Runs a segment and remembers the value of every node."""

    def __init__(self, code: fx.GraphModule) -> None:
        super().__init__(code, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n] = super().run_node(n)
        return self.values[n]


def _frozen(
    graph: Graph, segment: Segment, state: State, values: Mapping[str, Any]
) -> tuple[Segment, tuple[Any, ...], dict[str, Tensor]]:
    code = segment.code if isinstance(segment.code, fx.GraphModule) else fx.symbolic_trace(segment.code)
    recorder = _Recorder(code)
    arguments = [values[s] for s in segment.inputs] + [state[name] for name in segment.params]
    result = recorder.run(*arguments)
    placeholders = [node for node in code.graph.nodes if node.op == "placeholder"]
    carrying = {node for node, stream in zip(placeholders, segment.inputs, strict=False) if stream in graph.carried}
    affine, constants = Freezer(code, recorder.values, carrying, segment.id).run()
    names = [f"{segment.id}.held.{number}" for number in range(len(constants))]
    frozen = replace(
        segment,
        code=fx.GraphModule(torch.nn.Module(), affine, class_name=f"frozen_{segment.id}"),
        params=(*segment.params, *names),
    )
    made = tuple(result) if len(segment.outputs) > 1 else (result,)
    return frozen, made, dict(zip(names, constants, strict=True))

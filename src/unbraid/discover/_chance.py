from collections.abc import Iterator

import torch
from torch import fx

from unbraid.capture import where
from unbraid.errors import ChanceError
from unbraid.graph import Graph, Kind, drop_rate, in_training, name_of, operator_of, random, switched_off

_NOWHERE = "unknown file:0"  # a saved form keeps no lines of code
_SWITCHED = ("dropout", "attention", "lstm", "gru", "rnn")  # they draw in train mode alone


def refuse_stateful(graph: Graph, verb: str) -> None:
    """Refuse a graph in which an example's result depends on chance or on the other examples of its batch.

    Raises:
        ChanceError: with the operators, and what to do.
    """
    if found := sorted({f"{title} ({reason})" for title, reason in _stateful(graph)}):
        raise ChanceError(
            f"{verb}: what a block is worth would be mixed with chance, or with the other examples of its batch: the "
            f"graph holds {', '.join(found)}.\n"
            "  Trace the model in eval mode, or accept it with allow_random=True."
        )


def drawn(graph: Graph) -> tuple[str, ...]:
    """The operators that draw random numbers, each with file and line, in order of execution."""
    return tuple(dict.fromkeys(title for title, reason in _stateful(graph) if reason.startswith("random")))


def by_chance(graph: Graph) -> str:
    """What an error says of a sum that departs, where two runs of a graph differ; nothing where it draws no numbers."""
    if not (found := drawn(graph)):
        return ""
    switched = all(any(word in title for word in _SWITCHED) for title in found)
    remedy = "Let it take what it draws as an input"
    if switched:
        remedy = "Trace it in eval mode; where it draws there, too, let it take what it draws as an input"
    return f"\n  The model draws random numbers, so that no two runs are alike: {', '.join(found)}.\n  {remedy}."


def _stateful(graph: Graph) -> Iterator[tuple[str, str]]:
    """The operators, each with its place in the model's code, and why they are no function of one example."""
    for segment in graph.segments:
        if isinstance(segment.code, fx.GraphModule):
            for node in segment.code.graph.nodes:
                if isinstance(node.target, torch._ops.OpOverload) and (reason := _reason(node)):
                    place = where(node)
                    yield (name_of(node) if place == _NOWHERE else f"{name_of(node)} at {place}"), reason


def _reason(node: fx.Node) -> str | None:
    """Why an operator is random, or mixes examples."""
    if switched_off(node):
        return None
    if random(node):
        return "random"
    training = in_training(node)
    if training and operator_of(node).kind is Kind.NORM:
        return "in training mode it uses the statistics of the batch"
    return "random in training mode" if training and drop_rate(node) else None

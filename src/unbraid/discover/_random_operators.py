"""Operators whose result depends on chance, or on the other examples of a batch."""

from collections.abc import Iterator

import torch
from torch import fx

from unbraid.capture.provenance import where
from unbraid.errors import ChanceError
from unbraid.graph import Graph
from unbraid.graph.operators import Kind, Random, drop_rate, in_training, operator_of, random, switched_off
from unbraid.graph.questions import name_of

_NOWHERE = "unknown file:0"  # a saved form keeps no lines of code


def refuse_stateful(graph: Graph, verb: str) -> None:
    """Refuse a graph in which an example's result depends on chance or on the other examples of its batch.

    Raises:
        ChanceError: with the operators, and what to do.
    """
    if drawing := sorted({f"{_title(node)} ({reason})" for node, reason in _stateful(graph)}):
        raise ChanceError(
            f"{verb}: what a block is worth would be mixed with chance, or with the other examples of its batch: the "
            f"graph holds {', '.join(drawing)}.\n"
            "  Trace the model in eval mode, or accept it with allow_random=True."
        )


def drawn(graph: Graph) -> tuple[str, ...]:
    """The operators that draw random numbers, each with file and line, in order of execution."""
    return tuple(dict.fromkeys(map(_title, _drawing(graph))))


def by_chance(graph: Graph) -> str:
    """What an error says of a sum that departs, where two runs of a graph differ; nothing where it draws no numbers."""
    drawing = _drawing(graph)
    if not drawing:
        return ""
    remedy = "Let it take what it draws as an input"
    if all(map(_draws_in_training_alone, drawing)):
        remedy = "Trace it in eval mode; where it draws there, too, let it take what it draws as an input"
    return f"\n  The model draws random numbers, so that no two runs are alike: {', '.join(drawn(graph))}.\n  {remedy}."


def _drawing(graph: Graph) -> list[fx.Node]:
    return [node for node, reason in _stateful(graph) if reason.startswith("random")]


def _draws_in_training_alone(node: fx.Node) -> bool:
    """Whether an operator draws where it is told so alone: dropout, attention, and what has an argument for it."""
    return operator_of(node).random is Random.SWITCHED or in_training(node) is not None


def _title(node: fx.Node) -> str:
    """An operator with its place in the model's code."""
    place = where(node)
    return name_of(node) if place == _NOWHERE else f"{name_of(node)} at {place}"


def _stateful(graph: Graph) -> Iterator[tuple[fx.Node, str]]:
    """The operators that are no function of one example, and why."""
    for segment in graph.segments:
        if isinstance(segment.code, fx.GraphModule):
            for node in segment.code.graph.nodes:
                if isinstance(node.target, torch._ops.OpOverload) and (reason := _reason(node)):
                    yield node, reason


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

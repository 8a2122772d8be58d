from collections.abc import Iterator

import torch
from torch import fx

from unbraid.graph import Graph, name_of

_TRAINING, _RATE = ("train", "training"), ("p", "dropout", "dropout_p")


def refuse_stateful(graph: Graph, verb: str) -> None:
    """Refuse a graph in which an example's result depends on chance or on the other examples of its batch.

    Raises:
        ValueError: with the operators, and what to do.
    """
    if found := sorted({f"{name} ({reason})" for name, reason in _stateful(graph)}):
        raise ValueError(
            f"{verb}: what a block is worth would be mixed with chance, or with the other examples of its batch: the "
            f"graph holds {', '.join(found)}.\n"
            "  Trace the model in eval mode, or accept it with stateful=True."
        )


def _stateful(graph: Graph) -> Iterator[tuple[str, str]]:
    for segment in graph.segments:
        if isinstance(segment.code, fx.GraphModule):
            for node in segment.code.graph.nodes:
                if isinstance(node.target, torch._ops.OpOverload) and (reason := _reason(node, node.target)):
                    yield name_of(node), reason


def _reason(node: fx.Node, operator: torch._ops.OpOverload) -> str | None:
    """Why an operator is random, or mixes examples; torch marks random ones, whether they are switched on or not."""
    training, rate = _argument(node, operator, _TRAINING), _argument(node, operator, _RATE)
    if training is False or rate == 0:
        return None
    if torch.Tag.nondeterministic_seeded in operator.tags:
        return "random"
    if training and "norm" in name_of(node):
        return "in training mode it uses the statistics of the batch"
    return "random in training mode" if training and rate else None


def _argument(node: fx.Node, operator: torch._ops.OpOverload, names: tuple[str, ...]) -> object:
    for place, argument in enumerate(operator._schema.arguments):
        if argument.name in names:
            given = node.args[place] if place < len(node.args) else argument.default_value
            return node.kwargs.get(argument.name, given)
    return None

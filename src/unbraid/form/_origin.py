"""What a form was made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import fx, nn
from torch.export import ExportedProgram

# Of a block the names of the nodes of its skip, None in a plain layer, of its branches, and of its sum.
Operands: TypeAlias = tuple[str | None, tuple[str, ...], str]


@dataclass(frozen=True, eq=False)
class Origin:
    """What a form was made from; a check needs it, a run does not.

    Attributes:
        model: the model itself; None for a form that was loaded.
        program: the exported program, which a saved form keeps; None for a recorded run.
        layers: the names of the layers of a chain; empty for a traced model.
        graph: its captured graph before the cut.
        names: the name in the state of each placeholder that stands for a parameter, buffer or constant.
        operands: for each top-level block the names of the nodes of its skip (None in a plain layer), of its branches
            and of its sum.
        example: the inputs of the trace, positional and keyword; None for a form that was loaded.
        tied: groups of names of one tensor, such as an embedding and a head that share it.
        computed: the buffers that the model computes, which no file of weights holds.
        skips: the kinds of skip connections that were looked for.
        modes: the training flag of each of the model's modules when it was traced.
    """

    model: nn.Module | None
    program: ExportedProgram | None
    layers: tuple[str, ...]
    graph: fx.Graph
    names: Mapping[str, str]
    operands: tuple[Operands, ...]
    example: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None
    tied: tuple[tuple[str, ...], ...] = ()
    computed: frozenset[str] = frozenset()
    skips: tuple[str, ...] = ()
    modes: tuple[bool, ...] = ()

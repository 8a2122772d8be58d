"""What a form is, and how it runs; what can be asked of it and made of it is `ResidualForm`'s (`_form`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unbraid._modes import outside_modes
from unbraid.capture.signature import Signature, as_call
from unbraid.discover import Block, Trunk, every_block
from unbraid.errors import Refusal
from unbraid.form._empty import on_meta, refuse_empty_inputs, refuse_empty_weights
from unbraid.form._origin import Origin
from unbraid.graph import Add, Graph, Removal, Segment, Stream, differentiable
from unbraid.graph.edits import coarsest, under_autocast
from unbraid.graph.state import State, device_of, meta_tensor
from unbraid.results import Result
from unbraid.walk import Lengths, Tape, path_counts, record, run

_WIDE = frozenset({torch.float64, torch.complex128})


@dataclass(frozen=True, eq=False, repr=False)
class Form(Result):
    """What `ResidualForm` is; its docstring says what the fields hold."""

    graph: Graph
    blocks: tuple[Block, ...]
    state: State
    learned: frozenset[str]
    signature: Signature
    end: str
    dtype: torch.dtype
    tracer: str
    trunks: tuple[Trunk, ...] = ()
    tolerance: float | None = None
    error: float = float("nan")
    silent: tuple[Block, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    origin: Origin | None = field(default=None)
    deletions: tuple[Removal, ...] = ()
    moved: tuple[int, ...] = ()
    steering: tuple[str, ...] = ()
    heads: bool = False
    circuit: tuple[tuple[str, str], ...] | None = None
    notes: tuple[str, ...] = ()
    explains: str | None = None

    @property
    def streams(self) -> Mapping[str, Stream]:
        """Every stream by its id."""
        return self.graph.streams

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments in order of execution."""
        return self.graph.segments

    @property
    def adds(self) -> tuple[Add, ...]:
        """The residual additions in order of execution, those of nested blocks included."""
        return self.graph.adds

    @property
    def sources(self) -> tuple[str, ...]:
        """The streams at which the trunks begin."""
        return self.graph.sources

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output streams."""
        return self.graph.outputs

    @property
    def output(self) -> str:
        """The output that analyses explain: the first that carries data, or the one chosen by `explaining`."""
        if self.explains is not None:
            return self.explains
        return next(stream for stream in self.outputs if stream in self.graph.carried)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # the model's own signature, whatever it is
        """What the model would return.

        Raises:
            TypeError: the arguments do not fit the traced signature.
            ShapeError: a tensor's fixed sizes differ from the traced ones.
            TraceError: the form has no weights, and the inputs have values.
            DataError: an input has no values, and the weights have.
        """
        inputs = self.signature.bind(args, kwargs)
        if any(isinstance(value, Tensor) and value.is_meta for value in inputs.values()) != on_meta(self.state):
            refuse_empty_weights(self.state)
            refuse_empty_inputs(inputs)
        return self.signature.result(run(self.graph, self.state, inputs))

    @outside_modes
    def values(self, args: Any, kwargs: Mapping[str, Any] | None, streams: tuple[str, ...]) -> dict[str, Any]:
        """Run the form without gradients and return the values of some streams."""
        with torch.no_grad():
            return run(self.graph, self.state, self.inputs(args, kwargs), keep=streams)

    @outside_modes
    def tape(self, args: Any, kwargs: Mapping[str, Any] | None = None) -> Tape:
        """Run the form and keep what pulling cotangents back through its segments needs."""
        return record(self.graph, self.state, self.inputs(args, kwargs))

    def inputs(self, args: Any, kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The input streams of a call; `args` and `kwargs` as for `trace`.

        Raises:
            TypeError: as of a call.
            ShapeError: as of a call.
            TraceError: the form has no weights.
            DataError: an input has no values.
        """
        inputs = self.signature.bind(*as_call(args, kwargs))
        refuse_empty_weights(self.state)
        refuse_empty_inputs(inputs)
        return inputs

    @property
    def precision(self) -> torch.dtype:
        """The coarsest type in which anything of the data is computed: bfloat16 in a float32 model under autocast.

        Sums of terms and paths are exact to its rounding. Inside autocast the form computes as the model does there.
        """
        return torch.float64 if self.in_double else under_autocast(self._coarsest, device_of(self.state))

    @cached_property
    def _coarsest(self) -> torch.dtype:
        return coarsest(self.graph, self.dtype)

    @cached_property
    def in_double(self) -> bool:
        """Whether what it is given or has learned is in float64: a sum in float64 alone is no reason to widen."""
        if self.dtype not in _WIDE:
            return False
        given = (self.streams[stream].dtype for stream in self.graph.inputs if stream in self.streams)
        learned = (meta_tensor(self.state, name).dtype for name in self.learned)
        floating = {dtype for dtype in (*given, *learned) if differentiable(dtype)}
        return not floating or not floating.isdisjoint(_WIDE)

    @property
    def edited(self) -> bool:
        """Whether it computes something else than the model: after deletions, moves, steering, or as a circuit."""
        return bool(self.deletions or self.moved or self.steering) or self.circuit is not None

    @property
    def order(self) -> tuple[int, ...]:
        """The indices of the blocks in the order in which they run."""
        return self.moved or tuple(range(len(self.blocks)))

    def lengths(self, nested: bool = False) -> Lengths:
        """What counts as the length of a path: every branch of every top-level block 1.

        Args:
            nested: open the blocks inside branches: then entering the outer branch adds 0 and each inner branch 1.
        """
        if nested:
            return Lengths.opened(self.adds, {b.index: b.parent for b in self.all_blocks if b.parent is not None})
        return Lengths.top_level(self.adds, tuple(block.index for block in self.blocks))

    @property
    def all_blocks(self) -> tuple[Block, ...]:
        """The top-level blocks and those inside their branches, by index."""
        return every_block(self.blocks)

    def path_counts(self, nested: bool = False) -> list[int]:
        """The number of paths from the sources to the output that pass m branches, m = 0, 1, ...; exact integers."""
        return path_counts(self.graph, self.lengths(nested), self.output)

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Table
from rich.tree import Tree
from torch import Tensor

from unbraid._modes import outside_modes
from unbraid.errors import Refusal
from unbraid.form._block import Block
from unbraid.form._device import to_device
from unbraid.form._edit import coarsest, deleted, under_autocast, widened
from unbraid.form._equation import Equation, equation
from unbraid.form._heads import Split, by_heads
from unbraid.form._load import Loading
from unbraid.form._order import interchangeable, reorder
from unbraid.form._outputs import output_stream
from unbraid.form._result import Result, finite
from unbraid.form._show import block_row, form_rows, form_table, form_text, form_tree
from unbraid.form._signature import Signature, as_call
from unbraid.form._store import save
from unbraid.form._values import on_meta, refuse_empty_inputs, refuse_empty_weights
from unbraid.form._verify import Origin, Verification, verify
from unbraid.form._which import BlockLike, BranchLike, part_of
from unbraid.graph import Add, Graph, Segment, Stream, differentiable
from unbraid.walk import Lengths, State, Tape, device_of, like, path_counts, record, run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_WIDE = frozenset({torch.float64, torch.complex128})


@dataclass(frozen=True, eq=False, repr=False)
class ResidualForm(Result):
    """The residual form of a model: h_k = P_k(S_k h_{k−1} + Σ_j f_{k,j}(h_{k−1})) for any graph of such blocks.

    It is a weighted graph that is never changed: every edit returns another form. Parameters are shared with the model.

    Attributes:
        graph: the streams, segments and additions.
        blocks: the top-level blocks of all trunks, in order of execution.
        state: the parameters, buffers and constants that the segments name.
        learned: the names in the state of the model's parameters.
        signature: how calls are matched with the graph's inputs.
        stream: the stream that reaches the output: what the last block of the trunk hands to the head.
        dtype: the element type of that stream.
        tracer: which tracer captured the model.
        notes: what a reader must know: why sizes are fixed, what the trace passed to the model, what was not compared.
        tolerance: the largest relative error accepted between form and model; None for that of the type.
        error: the largest relative error measured between the form and the model; nan where nothing was run.
        silent: the blocks whose branch is zero, or too small beside the skip for a check to see it.
        refusals: the other additions of the model's data flow, and why each is not residual.
        origin: what the form was made from.
        deletions: the branches that were deleted from it.
        moved: the order in which its blocks run, by index; empty where it is the model's.
        heads: whether attention branches are split by head.
        explains: the output stream that analyses explain, where another was chosen than the first that carries data.
    """

    graph: Graph
    blocks: tuple[Block, ...]
    state: State
    learned: frozenset[str]
    signature: Signature
    stream: str
    dtype: torch.dtype
    tracer: str
    tolerance: float | None = None
    error: float = float("nan")
    silent: tuple[Block, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    origin: Origin | None = field(default=None)
    deletions: tuple[int | tuple[int, int], ...] = ()
    moved: tuple[int, ...] = ()
    heads: bool = False
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

    @outside_modes
    def verify(self, args: Any, kwargs: Mapping[str, Any] | None = None) -> Verification:
        """Check the form against the model at an input, and at a further one of another batch size.

        Raises:
            InexactError: they differ by more than rounding; it names the block at which they part.
        """
        return verify(self, args, kwargs)

    def to(self, device: torch.device | str) -> "ResidualForm":
        """The same form with its state on a device, and tensors that its code makes made there."""
        return to_device(self, torch.device(device))

    @outside_modes
    def save(self, folder: Path | str) -> Path:
        """Write the form into a folder: graph.pt2 (torch.export's format), weights.safetensors and form.json.

        Weights of more than 2 GB go into several files, weights-00001.safetensors and so on, and are read one file at a
        time where they are streamed. The files of a form that the folder holds are replaced at one moment: a kill
        leaves one form or the other, and who reads meanwhile gets one or the other. A form that is streamed from there
        keeps what it was loaded from. SHA256SUMS is what `sha256sum --check` reads.

        Raises:
            TraceError: the form is a recorded run, which torch.export's format cannot hold.
            CheckpointError: the folder cannot be written, another process writes into it, or it holds something else
                than a form; what it held is untouched.
        """
        return save(self, Path(folder))

    # ResidualForm.load(folder) reads a saved form; form.load(folder) gives this form the weights of a folder.
    load = Loading()

    @outside_modes
    def without(self, *which: BranchLike) -> "ResidualForm":
        """The form without branches: all of a block's, or one by (block, branch).

        The skip stays. In a plain layer, which has none, the identity takes the layer's place. Indices and names of
        the other blocks keep their meaning.

        Args:
            which: blocks by index (−1 is the last of `blocks`), by name, or as they are; branches as pairs of a block
                and the branch's number, from 0, or name: without(3, "layer1.0", (−1, 1)).

        Raises:
            IndexError: there is no such block or branch.
            ShapeError: a plain layer changes the size, so that no identity can take its place.
        """
        parts = tuple(part_of(self, part, "without") for part in which)
        branches = {block.index: len(block.branches) for block in self.all_blocks}
        graph = deleted(self.graph, parts, branches)
        return replace(self, graph=graph, deletions=(*self.deletions, *parts), error=float("nan"))

    @outside_modes
    def split(self, into: Split) -> "ResidualForm":
        """The form whose attention branches are split into one branch a head, where the graph shows the heads.

        The sum over a block's heads, and over the constant that their end adds, is its branch. Branches of other kinds
        stay as they are.

        Args:
            into: "heads"; or None for the form itself.

        Raises:
            ValueError: no branch shows attention heads, and it says why; or branches were deleted before.
        """
        if into is None or (into == "heads" and self.heads):
            return self
        if into != "heads":
            raise ValueError(f'split: "heads" or None; {into!r} came.')
        if self.deletions:
            raise ValueError("split: split first and delete then, so that (block, branch) keeps its meaning.")
        graph, blocks = by_heads(self.graph, self.blocks)
        return replace(self, graph=graph, blocks=blocks, heads=True)

    @property
    def precision(self) -> torch.dtype:
        """The coarsest type in which anything of the data is computed: bfloat16 in a float32 model under autocast.

        Sums of terms and paths are exact to its rounding. Inside autocast the form computes as the model does there.
        """
        return torch.float64 if self._double else under_autocast(self._coarsest, device_of(self.state))

    @cached_property
    def _coarsest(self) -> torch.dtype:
        return coarsest(self.graph, self.dtype)

    @cached_property
    def _double(self) -> bool:
        """Whether what it is given or has learned is in float64: a sum in float64 alone is no reason to widen."""
        if self.dtype not in _WIDE:
            return False
        given = (self.streams[stream].dtype for stream in self.graph.inputs if stream in self.streams)
        learned = (like(self.state, name).dtype for name in self.learned)
        floating = {dtype for dtype in (*given, *learned) if differentiable(dtype)}
        return not floating or not floating.isdisjoint(_WIDE)

    def explaining(self, output: str | int | None) -> "ResidualForm":
        """The form whose analyses explain another of the model's outputs.

        Args:
            output: its name in what the model returns ("pooler_output"), its number in a tuple, or names and numbers
                joined by dots ("hidden_states.2"); None for the form itself.

        Raises:
            TargetError: there is no such output, or it carries no data; it names those that do.
        """
        return self if output is None else replace(self, explains=output_stream(self, output))

    def reorder(self, order: Sequence[BlockLike]) -> "ResidualForm":
        """The form with its blocks in another order (Veit et al. 2016, section 4.3).

        A block moves as a whole: branches, skip and what the trunk does with the sum before the next fork. Everything
        else that it reads, masks or an encoder's output, stays where it is, and so does what reads the trunk between
        two blocks. Indices and names of the blocks keep their meaning; permutations compose.

        Args:
            order: for each position the block that is to run there, order[i] the i-th: by its present position, from
                the end where it is negative, by its name, or the block itself.

        Raises:
            IndexError: there is no block of a name.
            ValueError: a position is missing or comes twice, a block would leave its trunk, or would run before
                something that it reads.
            ShapeError: two blocks that would meet disagree in shape.
        """
        return reorder(self, order)

    @property
    def order(self) -> tuple[int, ...]:
        """The indices of the blocks in the order in which they run."""
        return self.moved or tuple(range(len(self.blocks)))

    def interchangeable(self) -> list[list[int]]:
        """The positions whose blocks can change places: of one trunk, and of one shape before and after the block."""
        return interchangeable(self)

    @cached_property
    def exact(self) -> "ResidualForm":
        """The form that analyses run: in float64 with casts to narrower types widened, otherwise the form itself."""
        if not self._double:
            return self
        graph, state = widened(self.graph, self.state)
        return self if graph is self.graph else replace(self, graph=graph, state=state)

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
        found, waiting = [], list(self.blocks)
        while waiting:
            block = waiting.pop()
            found.append(block)
            waiting.extend(block.nested)
        return tuple(sorted(found, key=lambda block: block.index))

    def path_counts(self, nested: bool = False) -> list[int]:
        """The number of paths from the sources to the output that pass m branches, m = 0, 1, ...; exact integers."""
        return path_counts(self.graph, self.lengths(nested), self.output)

    def equation(self) -> Equation:
        """Equations 11.5 and 11.6 of Prince (2023) for this model, as text and as LaTeX."""
        return equation(self.blocks)

    def table(self) -> Table:
        """The blocks as a table for the terminal."""
        return form_table(self)

    def tree(self) -> Tree:
        """Trunk and branches as a tree for the terminal, nested blocks under their branch."""
        return form_tree(self)

    def __str__(self) -> str:
        return form_text(self)

    __repr__ = __str__

    def rows(self) -> list[dict[str, Any]]:
        """One a block."""
        return form_rows(self)

    def scalars(self) -> dict[str, float]:
        """How many blocks there are, what they learn, and the error where it was measured."""
        parameters = sum(block.parameters for block in self.blocks)
        return finite({"blocks": len(self.blocks), "parameters": parameters, "error": self.error})

    def plot(self, *, ax: "Axes | None" = None) -> "Figure":
        """What each block learns, and the kind of its skip, in order of execution."""
        from unbraid.draw import blocks  # matplotlib is imported where a figure is wanted

        found = [self.blocks[index] for index in self.order]
        return blocks([b.name for b in found], [b.parameters for b in found], [b.skip for b in found], ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """The blocks and the measured error as plain values."""
        return {
            "blocks": [block_row(block) for block in self.blocks],
            "sources": list(self.sources),
            "dtype": str(self.dtype).removeprefix("torch."),
            "tracer": self.tracer,
            "notes": list(self.notes),
            "error": self.error,
            "silent": [block.index for block in self.silent],
        }

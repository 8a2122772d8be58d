"""The residual form of a model: what can be asked of it and made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from rich.table import Table
from rich.tree import Tree
from torch import Tensor

from unbraid._modes import outside_modes
from unbraid.capture import output_stream
from unbraid.discover import (
    BlockLike,
    BranchLike,
    Equation,
    Split,
    by_heads,
    equation,
    interchangeable,
    removal_of,
    reorder,
)
from unbraid.form._core import Form
from unbraid.form._only import EdgeSet, called_with, only
from unbraid.form._show import block_row, form_rows, form_table, form_text, form_tree
from unbraid.form._steering import stream_before, with_vectors
from unbraid.form._verify import Verification, verify
from unbraid.graph import made_on, on_device
from unbraid.graph.edits import deleted, widened
from unbraid.graph.state import joined, moved
from unbraid.results import finite
from unbraid.saved import Facts, save, state_from

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class ResidualForm(Form):
    """The residual form of a model: h_k = P_k(S_k h_{k−1} + Σ_j f_{k,j}(h_{k−1})) for any graph of such blocks.

    It is a weighted graph that is never changed: every edit returns another form. Parameters are shared with the model.

    Attributes:
        graph: the streams, segments and additions.
        blocks: the top-level blocks of all trunks, in order of execution.
        trunks: the chains that they form: one in most models.
        state: the parameters, buffers and constants that the segments name.
        learned: the names in the state of the model's parameters.
        signature: how calls are matched with the graph's inputs.
        end: the stream that reaches the output: what the last block of the trunk hands to the head.
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
        steering: the names in the state of the vectors that `steered` adds.
        heads: whether attention branches are split by head.
        circuit: the edges that its readers hear; None where they hear all.
        explains: the output stream that analyses explain, where another was chosen than the first that carries data.
    """

    @outside_modes
    def verify(self, args: Any, kwargs: Mapping[str, Any] | None = None) -> Verification:
        """Check the form against the model at an input, and at a further one of another batch size.

        Raises:
            InexactError: they differ by more than rounding; it names the block at which they part.
        """
        return verify(self, args, kwargs)

    def to(self, device: torch.device | str) -> "ResidualForm":
        """The same form with its state on a device, and tensors that its code makes made there."""
        device = torch.device(device)
        origin = self.origin and replace(self.origin, graph=made_on(self.origin.graph, device))
        return replace(self, graph=on_device(self.graph, device), state=moved(self.state, device), origin=origin)

    @outside_modes
    def save(self, folder: Path | str) -> Path:
        """Write the form into a folder: graph.pt2 (torch.export's format), weights.safetensors and form.json.

        Weights of more than 2 GB go into several files, weights-00001.safetensors and so on, and are read one file at a
        time where they are streamed. The files of a form that the folder holds are replaced at one moment: a kill
        leaves one form or the other, and who reads meanwhile gets one or the other. A form that is streamed from there
        keeps what it was loaded from. SHA256SUMS is what `sha256sum --check` reads.

        Raises:
            TraceError: the form is a recorded run, which torch.export's format cannot hold.
            ValueError: the form runs a circuit, or vectors are added to it, and the folder of a form holds neither; the
                form that it was made of can be saved.
            CheckpointError: the folder cannot be written, another process writes into it, or it holds something else
                than a form; what it held is untouched.
        """
        if self.circuit is not None:
            raise ValueError(
                "save: this form runs a circuit, and the folder of a form holds no edges. Save the form that it was "
                "made of, keep the circuit's edges, and make it again: load(folder).only(circuit, ...)."
            )
        if self.steering:
            raise ValueError(
                "save: vectors are added to this form, and the folder of a form holds none. Save the form that was "
                "steered, and steer what is loaded: unbraid.load(folder).steered(...)."
            )
        facts = Facts(
            learned=self.learned,
            layers=self.origin.layers if self.origin else (),
            skips=self.origin.skips if self.origin else (),
            heads=self.heads,
            deletions=self.deletions,
            moved=self.moved,
            tolerance=self.tolerance,
            error=self.error,
            silent=tuple(block.index for block in self.silent),
            notes=self.notes,
        )
        return save(Path(folder), self.origin.program if self.origin else None, self.signature, self.state, facts)

    @outside_modes
    def with_weights(
        self, folder: Path | str, *, stream: bool = False, device: torch.device | str = "cpu"
    ) -> "ResidualForm":
        """The form with the weights of a folder, such as one traced with device="meta" has none.

        Names, sizes and the lengths of the files are checked now, without reading the weights;
        `form.verify(args)` then compares the form with its graph before the cut.

        Args:
            folder: a .safetensors file, or a folder of them as transformers and timm write it, sharded or not, or a
                saved form, of which the weights alone are taken.
            stream: leave the weights in the files: each segment reads its own when its turn comes, forward and
                backward, and lets go of them. Memory then holds the activations and the weights of one segment.
            device: where it is to run; what is read goes there.

        Raises:
            CheckpointError: a file is damaged, or lacks a tensor, or has one of other sizes; it is named.
            ValueError: vectors are added to the form, which no file holds.
        """
        if self.steering:
            raise ValueError("with_weights: vectors are added to this form. Load the weights first, and steer then.")
        origin = self.origin
        known = () if origin is None else (origin.tied, origin.computed)
        state = state_from(Path(folder), self.state, *known)
        # The model has not these weights: from here on the captured graph before the cut is what the form is checked
        # with.
        origin = origin and replace(origin, model=None)
        loaded = replace(self, state=state, origin=origin, error=float("nan"), silent=()).to(device)
        return loaded if stream else replace(loaded, state={name: loaded.state[name] for name in loaded.state})

    @staticmethod
    def load(*_: object, **__: object) -> NoReturn:
        """What was `ResidualForm.load(folder)` is `unbraid.load(folder)`; `form.load(folder)` is `form.with_weights`.

        Raises:
            AttributeError: always.
        """
        raise AttributeError(
            "ResidualForm.load(folder) is now unbraid.load(folder), and form.load(folder) is form.with_weights(folder)."
        )

    @outside_modes
    def without(self, *which: BranchLike) -> "ResidualForm":
        """The form without branches: all of a block's, or one by (block, branch); or without a skip.

        The skip stays. In a plain layer, which has none, the identity takes the layer's place. Indices and names of
        the other blocks keep their meaning. (block, "skip") deletes a skip: zeros stand for it in a concatenation.

        Args:
            which: blocks by index (−1 is the last of `blocks`), by name, or as they are; branches as pairs of a block
                and the branch's number, from 0, or name: without(3, "layer1.0", (−1, 1)); skips as (0, "skip").

        Raises:
            IndexError: there is no such block or branch; or neither skip nor branch of a block would be left.
            ShapeError: a plain layer changes the size, so that no identity can take its place.
        """
        parts = tuple(removal_of(self.blocks, part, "without", skips=True) for part in which)
        branches = {block.index: len(block.branches) for block in self.all_blocks}
        graph = deleted(self.graph, parts, branches)
        return replace(self, graph=graph, deletions=(*self.deletions, *parts), error=float("nan"))

    @outside_modes
    def stream(self, block: BlockLike, args: Any, kwargs: Mapping[str, Any] | None = None) -> Tensor:
        """The stream before a block: what its skip and its branches part from, as a hook before the block would see it.

        Args:
            block: by index (−1 is the last of `blocks`), by name, or as it is, nested ones too; "end" for the stream
                that reaches the head.
            args: the positional inputs; a bare tensor means (tensor,).
            kwargs: the keyword inputs.

        Raises:
            IndexError: there is no such block.
            ValueError: the form runs a circuit, in which each reader has a stream of its own.
        """
        name = stream_before(self, block, "stream")
        value: Tensor = self.values(args, kwargs, (name,))[name]
        return value

    @outside_modes
    def steered(self, vectors: Mapping[BlockLike, Tensor]) -> "ResidualForm":
        """The form with a vector added to the stream before a block: h ← h + v (activation steering).

        Everything that reads this stream sees the sum: the block's skip, its branches, and all that follows; also
        another block that begins at the same stream, and an output that is the stream. In the analyses the vector is a
        constant of the trunk; before its first block `unravel` counts it with the input. Indices and names keep their
        meaning. The result runs and is edited like any form, but is not saved; vectors that are added twice add up. Of
        blocks that are reordered later, the one that hands the stream on takes the vector along.

        Args:
            vectors: by block, as for `stream`, a tensor that broadcasts to the stream's shape, the same for all
                examples: [width], or [positions, width], with which the form takes that number of positions alone. It
                is copied, in the stream's type.

        Raises:
            IndexError: there is no such block.
            ValueError: the form runs a circuit; steer first.
            ShapeError: a vector does not broadcast to the stream's shape.
            TypeError: a vector is no tensor, or complex where the stream is not.
            DataError: a vector lies on the meta device, and the form does not.
        """
        return with_vectors(self, vectors)

    @outside_modes
    def split(self, into: Split) -> "ResidualForm":
        """The form whose attention branches are split into one branch per head, where the graph shows the heads.

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

    def explaining(self, output: str | int | None) -> "ResidualForm":
        """The form whose analyses explain another of the model's outputs.

        Args:
            output: its name in what the model returns ("pooler_output"), its number in a tuple, or names and numbers
                joined by dots ("hidden_states.2"); None for the form itself.

        Raises:
            TargetError: there is no such output, or it carries no data; it names those that do.
        """
        if output is None:
            return self
        return replace(self, explains=output_stream(self.signature.output, self.graph.carried, output))

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
        if self.circuit is not None:
            raise ValueError("reorder: in a form that runs a circuit readers hear trunks of their own; reorder before.")
        graph, moved = reorder(self.graph, self.blocks, self.order, self.end, order)
        return replace(self, graph=graph, moved=moved, error=float("nan"))

    @outside_modes
    def only(self, circuit: EdgeSet, *, corrupt: Any = None, fill: str | None = None) -> "ResidualForm":
        """The form that runs a circuit: each reader hears the circuit's edges, and of all others a replacement.

        What a reader reads is the trunk run anew, with what writers write where the edge is the circuit's, and its
        replacement elsewhere; the writers are those of this form, so that what is replaced for one shows in what it
        writes (Conmy et al. 2023, ACDC). With all edges it is the form itself.

        Args:
            circuit: of `EdgeStudy.circuit`, or anything with its `edges`.
            corrupt: inputs at which replaced values are taken, a tensor, a tuple or a dict: the form then runs on
                inputs of their sizes alone.
            fill: "zero", or "mean" over the examples of a call, at each position, as the whole model writes them.

        Raises:
            ValueError: the form has no such edge; neither or both of corrupt and fill are given.
        """
        form = self.split("heads") if circuit.by == "head" else self
        given = called_with(form, corrupt, fill)
        graph, held, heard = only(form.graph, form.blocks, form.state, circuit, given, fill)
        signature = form.signature if given is None else form.signature.fixed(given)
        state = joined(form.state, held)
        form = replace(form, graph=graph, state=state, signature=signature, end=heard.get(form.end, form.end))
        return replace(form, circuit=(*circuit.edges,), error=float("nan"))

    def interchangeable(self) -> list[list[int]]:
        """The positions whose blocks can change places: of one trunk, and of one shape before and after the block."""
        return interchangeable(self.graph, self.blocks, self.order, self.end)

    @cached_property
    def exact(self) -> "ResidualForm":
        """The form that analyses run: in float64 with casts to narrower types widened, otherwise the form itself."""
        if not self.in_double:
            return self
        graph, state = widened(self.graph, self.state)
        return self if graph is self.graph else replace(self, graph=graph, state=state)

    def equation(self) -> Equation:
        """Equations 11.5 and 11.6 of Prince (2023) for this model, as text and as LaTeX."""
        return equation(self.graph, self.blocks, self.order, self.end)

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
        """One row per block."""
        return form_rows(self)

    def scalars(self) -> dict[str, float]:
        """How many blocks there are, what they learn, and the error where it was measured."""
        parameters = sum(block.parameters for block in self.blocks)
        return finite({"blocks": len(self.blocks), "parameters": parameters, "error": self.error})

    def plot(self, *, ax: "Axes | None" = None) -> "Figure":
        """What each block learns, and the kind of its skip, in order of execution."""
        from unbraid.draw import blocks  # matplotlib is imported where a figure is wanted

        ordered = [self.blocks[index] for index in self.order]
        return blocks([b.name for b in ordered], [b.parameters for b in ordered], [b.skip for b in ordered], ax=ax)

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

"""The parts of a gradient that pass given blocks; they overlap, as a path passes several."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any, Literal

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid.discover import BlockLike
from unbraid.form import TARGET, Linearised, ResidualForm, gradient_error
from unbraid.paths._length_statistics import per_example
from unbraid.paths._spectrum_place import place_of
from unbraid.paths._sum_checks import largest_of, parts_error
from unbraid.results import Result, Target, said_of
from unbraid.results.rows import Row, as_rows
from unbraid.walk import BlockSet, ThroughBlocks, walk

_MOST = {"block": 1, "pair": 2}  # blocks of a set


@dataclass(frozen=True, eq=False, repr=False)
class GradientParts(Result):
    """The parts of ∂target/∂source that travel through given blocks: g_S = Σ over the paths that pass every block of S.

    A path belongs to the part of every block that it passes, so the parts overlap: over single blocks they sum to
    Σ_m m·g_m, where g_m is the part of length m of the gradient spectrum.

    Attributes:
        blocks: the names of the blocks, by index.
        sets: the sets of blocks S: each block alone, and then, where asked for, each pair.
        gradients: g_S for each set, [sets, *source].
        norms: the 2-norm per example of each, averaged over the batch, [sets].
        signed: ⟨g_S, g⟩/‖g‖² for each, averaged over the batch: the share of the gradient that passes all of S.
        error: the largest relative error against autograd, of the whole and of the part with the largest norm; nan
            where it was not measured.
        summed: whether examples influence one another: then norms are those of the whole batch's gradient.
    """

    blocks: Mapping[int, str]
    sets: tuple[BlockSet, ...]
    gradients: Inexact[Tensor, "sets *source"]
    norms: Float[Tensor, " sets"]
    signed: Float[Tensor, " sets"]
    error: float
    summed: bool = False

    columns = (("through", "{through}"), ("norm", "{norm:.4g}"), ("signed share", "{signed:+.2%}"))
    entries = ("blocks", "sets", "norms", "signed", "error", "summed")

    @property
    def caption(self) -> str:
        """How exact the parts are."""
        return f"parts overlap; autograd gives the same to {self.error:.1e}{said_of(self.summed)}"

    def matrix(self) -> Float[Tensor, "blocks blocks"]:
        """The signed share of each pair of blocks, with single ones on the diagonal; nan where not asked for."""
        place = {block: row for row, block in enumerate(self.blocks)}
        shares = torch.full((len(place), len(place)), torch.nan, dtype=self.signed.dtype, device="cpu")
        for blocks, share in zip(self.sets, self.signed.tolist(), strict=True):
            row, column = place[blocks[0]], place[blocks[-1]]
            shares[row, column] = shares[column, row] = share
        return shares

    def rows(self) -> list[Row]:
        """One row per set of blocks."""
        names = [" and ".join(map(self.blocks.__getitem__, blocks)) for blocks in self.sets]
        return as_rows({"through": names, "norm": self.norms, "signed": self.signed})

    def _table_rows(self) -> list[Row]:
        rows = self.rows()
        return [rows[number] for number in self.norms.argsort(descending=True).tolist()]

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The signed share of each block; of each pair as a matrix, where there are pairs."""
        from unbraid.draw import parts

        return parts(list(self.blocks.values()), self.matrix().tolist(), ax=ax)


@outside_modes
def gradient_parts(
    form: ResidualForm,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: Target,
    by: Literal["block", "pair"] = "block",
    at: BlockLike = "source",
    check: bool = True,
    nested: bool = False,
    output: str | int | None = None,
    chunk: int | None = None,
) -> GradientParts:
    """The part of a target's gradient that passes each block, or each pair of blocks; exact.

    g_S = Σ_{T⊆S} (−1)^|T| g(T), where g(T) is the gradient with the branches of T cut. One backward walk gives all of
    them: about K²/2 branch products for single blocks and K³/6 for pairs, where a gradient is K.

    Args:
        form: a traced model.
        args: its positional inputs; a bare tensor means (tensor,).
        kwargs: its keyword inputs.
        target: what to explain, one number per example: a class, or a tensor [batch] of them, for an output [batch,
            classes]; a pair (position, class), each an int or a tensor [batch], for [batch, positions, classes]; a list
            of these, one for each example; or a function of what the model returns that gives a tensor [batch].
        output: which of several outputs indices pick from, by name or number; see `ResidualForm.explaining`.
        by: "block", or "pair" for pairs too.
        at: "source" for the first source, the name of one of `form.sources`, or a block, by index or name: the
            gradient at that block's branch output, and the blocks after it.
        check: compare the whole and the largest part with autograd, the model's own where it is at hand, for four
            gradients more (six for a pair).
        nested: the blocks inside branches too, in the place of those around them.
        chunk: how many cotangents are pulled back at once. Memory is a forward run's activations plus two stacks of at
            most K+1 cotangents of the trunk, K(K+1)/2 + 1 with pairs.

    Raises:
        ValueError: the target does not fit the output, or there is no such source.
        IndexError: there is no such block.
        InexactError: a sum departs from autograd by more than rounding.
    """
    if by not in _MOST:
        raise ValueError(f'gradient_parts: by is "block" or "pair"; {by!r} came.')
    form = form.explaining(output)
    linear = Linearised.at(form, args, kwargs, target, nested=nested)
    algebra = ThroughBlocks(linear.graph, linear.tape, linear.lengths, _MOST[by], chunk)
    place = place_of(linear.form, at)
    through = walk(linear.graph, algebra, {TARGET: algebra.seed(linear.seed)}, [place]).get(place)
    nothing = torch.zeros_like(linear.tape.values[place])
    rows = {} if through is None else dict(zip(through.sets, through.stack, strict=True))
    whole = rows.get((), nothing)
    weights = linear.lengths.weights
    names = {block.index: block.name for block in form.all_blocks if any(weights.get(block.index, ()))}
    sizes = (1,) if by == "block" else (1, 2)
    sets = tuple(chain.from_iterable(combinations(names, size) for size in sizes))
    gradients = torch.stack([rows.get(blocks, nothing) for blocks in sets])
    examples = linear.examples_of(linear.gradients_at([place]))
    norms, signed = per_example(gradients, whole, examples, place)
    error = float("nan")
    if check:
        largest = int(norms.argmax())
        error = parts_error(linear, place, whole, sets[largest], gradients[largest])
        error = largest_of(error, gradient_error(form, args, kwargs, target))
    return GradientParts(names, sets, gradients, norms, signed, error, examples.summed)

"""A target split by path length, every non-linear factor held at its value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid._renamed import split_before
from unbraid.form import TARGET, Linearised, ResidualForm
from unbraid.results import Result, Target, said_of, sum_error
from unbraid.results.rows import Row, as_rows
from unbraid.walk import Polynomials, path_counts, walk


@dataclass(frozen=True, eq=False, repr=False)
class ValueSpectrum(Result):
    """A target split by the length of the paths that make it, every non-linear factor held at its value.

    Attributes:
        from_input: what the paths from the sources add, by length and example, [K+1, batch].
        from_constants: what the paths from every constant add (biases, φ(0), learned tokens), [K+1, batch]; a
            constant's length counts the branch that holds it, and the head's is 0.
        target: the scalar that is explained, [batch].
        counts: the number of paths from the sources of each length.
        error: ‖Σ − target‖∞ relative to the largest of the parts and of the target.
        summed: whether examples influence one another: then the batch's sum is split, and batch is 1.
    """

    from_input: Float[Tensor, "lengths batch"]
    from_constants: Float[Tensor, "lengths batch"]
    target: Float[Tensor, " batch"]
    counts: tuple[int, ...]
    error: float
    summed: bool = False

    columns = (
        ("length", "{length:d}"),
        ("paths", "{paths:,}"),
        ("from the input", "{from input:+.4g}"),
        ("from constants", "{from constants:+.4g}"),
    )

    @property
    def caption(self) -> str:
        """How exact the sum is."""
        return f"the lengths sum to the target to {self.error:.1e}{said_of(self.summed)}"

    def total(self) -> Float[Tensor, " batch"]:
        """The sum over all paths: the target."""
        return torch.cat([self.from_input, self.from_constants]).sum(0)  # as `error` adds them

    def rows(self) -> list[Row]:
        """One row per length, averaged over the batch."""
        lengths = range(len(self.counts))
        parts = {"from input": self.from_input.mean(1), "from constants": self.from_constants.mean(1)}
        return as_rows({"length": lengths, "paths": self.counts, **parts})

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The two parts by length, averaged over the batch."""
        from unbraid.draw import values

        return values(self.from_input.mean(1).tolist(), self.from_constants.mean(1).tolist(), ax=ax)


@split_before
@outside_modes
def value_spectrum(
    form: ResidualForm,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: Target,
    nested: bool = False,
    output: str | int | None = None,
    chunk: int | None = None,
) -> ValueSpectrum:
    """The target itself, split exactly over the lengths of all paths.

    The model is frozen at this input: then it is affine, equals the model there, and the target is the sum over paths
    from the sources of ⟨gradient along the path, source⟩ plus the same for every constant.

    Args:
        form: a traced model.
        args: its positional inputs; a bare tensor means (tensor,).
        kwargs: its keyword inputs.
        target: what to explain, one number per example: a class, or a tensor [batch] of them, for an output [batch,
            classes]; a pair (position, class), each an int or a tensor [batch], for [batch, positions, classes]; a list
            of these, one for each example; or a function of what the model returns that gives a tensor [batch].
            Where it is not linear it is linearised at the output, and the remainder joins the head's constants.
        output: which of several outputs indices pick from, by name or number; see `ResidualForm.explaining`.
        nested: open the blocks inside branches.
        chunk: how many cotangents are pulled back at once.

    Raises:
        ValueError: the target does not fit the output.
        InexactError: an operator has no rule, or the sum departs from the target by more than rounding.
    """
    linear = Linearised.at(form.explaining(output), args, kwargs, target, frozen=True, nested=nested)
    algebra = Polynomials(linear.graph, linear.tape, linear.lengths, None, chunk)
    places = {*linear.graph.sources, *(stream for stream, _ in linear.constants)}
    polynomials = walk(linear.graph, algebra, {TARGET: algebra.seed(linear.seed)}, places)
    counts = tuple(path_counts(linear.graph, linear.lengths, TARGET))

    def by_length(pairs: list[tuple[str, Tensor]]) -> Tensor:
        total = linear.target.new_zeros((len(counts), len(linear.target)))
        for stream, value in pairs:
            if stream in polynomials:
                along = linear.examples.dot(stream, polynomials[stream].stack, value)
                total[polynomials[stream].low : polynomials[stream].high] += along.to(total.dtype)
        return total

    from_input = by_length([(source, linear.tape.values[source]) for source in linear.graph.sources])
    from_constants = by_length(linear.constants)
    from_constants[0] += linear.remainder
    error = sum_error(torch.cat([from_input, from_constants]), linear.target)
    linear.check_sum(error, "value_spectrum: the lengths must sum to the target")
    return ValueSpectrum(from_input, from_constants, linear.target, counts, error, linear.examples.summed)

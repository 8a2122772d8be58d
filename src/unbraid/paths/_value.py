from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid.form import ResidualForm, Result, Row, Split, Target, as_rows, check_sum, said_of, sum_error
from unbraid.paths._setting import Setting
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
        return (self.from_input + self.from_constants).sum(0)

    def rows(self) -> list[Row]:
        """One row per length, averaged over the batch."""
        lengths = range(len(self.counts))
        parts = {"from input": self.from_input.mean(1), "from constants": self.from_constants.mean(1)}
        return as_rows({"length": lengths, "paths": self.counts, **parts})

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The two parts by length, averaged over the batch."""
        from unbraid.draw import values

        return values(self.from_input.mean(1).tolist(), self.from_constants.mean(1).tolist(), ax=ax)


@outside_modes
def value_spectrum(
    form: ResidualForm,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: Target,
    nested: bool = False,
    split: Split = None,
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
        split: "heads" for a branch a head in attention, where the graph shows the heads.
        chunk: how many cotangents are pulled back at once.

    Raises:
        ValueError: the target does not fit the output, or there is nothing to split.
        InexactError: an operator has no rule, or the sum departs from the target by more than rounding.
    """
    setting = Setting.of(form, args, kwargs, target, "frozen", nested, split, output)
    exact, found_aim, examples = setting.form, setting.aim, setting.examples
    algebra = Polynomials(setting.graph, setting.tape, setting.lengths, None, chunk)
    places = {*setting.graph.sources, *(stream for stream, _ in setting.fixed)}
    found = walk(setting.graph, algebra, {setting.output: algebra.seed(found_aim.seed)}, places)
    counts = tuple(path_counts(setting.graph, setting.lengths, setting.output))

    def by_length(pairs: list[tuple[str, Tensor]]) -> Tensor:
        total = setting.target.new_zeros((len(counts), len(setting.target)))
        for stream, value in pairs:
            if stream in found:
                along = examples.dot(stream, found[stream].stack, value)
                total[found[stream].low : found[stream].high] += along.to(total.dtype)
        return total

    from_input = by_length([(source, setting.tape.values[source]) for source in setting.graph.sources])
    from_constants = by_length(setting.fixed)
    from_constants[0] += found_aim.remainder(examples, setting.gradients)
    error = sum_error(torch.cat([from_input, from_constants]), setting.target)
    rule = "value_spectrum: the lengths must sum to the target"
    check_sum(error, rule, precision=exact.precision, graph=exact.graph, where=exact.output)
    return ValueSpectrum(from_input, from_constants, setting.target, counts, error, examples.summed)

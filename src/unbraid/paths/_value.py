from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from rich import box
from rich.table import Table
from torch import Tensor

from unbraid.errors import InexactError
from unbraid.form import ResidualForm, Result, Split, Target, objective, relative_error, tolerance
from unbraid.walk import Polynomial, Polynomials, constants, freeze, record, walk

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class ValueSpectrum(Result):
    """A target split by the length of the paths that make it, every non-linear factor held at its value.

    Attributes:
        from_input: what the paths from the sources add, by length and example, [K+1, batch].
        from_constants: what the paths from every constant add (biases, φ(0), learned tokens), [K+1, batch]; a
            constant's length counts the branch that holds it, and the head's is 0.
        target: the scalar that is explained, [batch].
        counts: the number of paths from the sources of each length.
        error: ‖Σ − target‖∞ / ‖target‖∞.
    """

    from_input: Float[Tensor, "lengths batch"]
    from_constants: Float[Tensor, "lengths batch"]
    target: Float[Tensor, " batch"]
    counts: tuple[int, ...]
    error: float

    def total(self) -> Float[Tensor, " batch"]:
        """The sum over all paths: the target."""
        return (self.from_input + self.from_constants).sum(0)

    def table(self) -> Table:
        """One row a length, averaged over the batch."""
        table = Table(box=box.SIMPLE_HEAD, caption=f"the lengths sum to the target to {self.error:.1e}")
        table.caption_justify = "left"
        for column in ("length", "paths", "from the input", "from constants"):
            table.add_column(column, justify="right")
        rows = zip(self.counts, self.from_input.mean(1), self.from_constants.mean(1), strict=True)
        for length, (count, moving, fixed) in enumerate(rows):
            table.add_row(str(length), f"{count:,}", f"{moving:+.4g}", f"{fixed:+.4g}")
        return table

    def to_dict(self) -> dict[str, Any]:
        """All values as plain lists."""
        return {
            "from_input": self.from_input.tolist(),
            "from_constants": self.from_constants.tolist(),
            "target": self.target.tolist(),
            "counts": list(self.counts),
            "error": self.error,
        }

    def rows(self) -> list[dict[str, Any]]:
        """One a length, averaged over the batch."""
        columns = zip(self.counts, self.from_input.mean(1).tolist(), self.from_constants.mean(1).tolist(), strict=True)
        return [
            {"length": length, "paths": count, "from input": moving, "from constants": fixed}
            for length, (count, moving, fixed) in enumerate(columns)
        ]

    def plot(self, *, ax: "Axes | None" = None) -> "Figure":
        """The two parts by length, averaged over the batch."""
        from unbraid.draw import values

        return values(self.from_input.mean(1).tolist(), self.from_constants.mean(1).tolist(), ax=ax)


def value_spectrum(
    form: ResidualForm,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: Target,
    nested: bool = False,
    split: Split = None,
    chunk: int | None = None,
) -> ValueSpectrum:
    """The target itself, split exactly over the lengths of all paths.

    The model is frozen at this input: then it is affine, equals the model there, and the target is the sum over paths
    from the sources of ⟨gradient along the path, source⟩ plus the same for every constant.

    Args:
        form: a traced model.
        args: its positional inputs; a bare tensor means (tensor,).
        kwargs: its keyword inputs.
        target: class indices, a (position, class) pair, or a function of the output that gives one number per example;
            where it is not linear it is linearised at the output, and the remainder joins the head's constants.
        nested: open the blocks inside branches.
        split: "heads" for a branch a head in attention, where the graph shows the heads.
        chunk: how many cotangents are pulled back at once.

    Raises:
        ValueError: the target does not fit the output, or there is nothing to split.
        InexactError: an operator has no rule, or the sum departs from the target by more than rounding.
    """
    exact = form.split(split).exact
    frozen, state = freeze(exact.graph, exact.state, exact.inputs(args, kwargs))
    tape = record(frozen, state, exact.inputs(args, kwargs))
    aim = objective(tape.values[exact.output], target)
    algebra = Polynomials(frozen, tape, exact.lengths(nested), None, chunk)
    fixed = list(constants(frozen, state, tape.values))
    places = {*frozen.sources, *(stream for stream, _ in fixed)}
    found = walk(frozen, algebra, {exact.output: algebra.seed(aim.cotangent)}, places)
    counts = tuple(exact.path_counts(nested))
    batch = len(aim.values)

    def by_length(pairs: list[tuple[str, Tensor]]) -> Tensor:
        total = aim.values.new_zeros((len(counts), batch))
        for stream, value in pairs:
            if stream in found:
                _add_at(total, found[stream], value)
        return total

    from_input = by_length([(source, tape.values[source]) for source in frozen.sources])
    from_constants = by_length(fixed)
    from_constants[0] += aim.remainder
    error = relative_error((from_input + from_constants).sum(0), aim.values)
    if not error <= tolerance("sum", exact.precision):
        raise InexactError(
            f"value_spectrum: the lengths must sum to the target to {tolerance('sum', exact.dtype):g}; "
            f"they depart by {error:.2e}.",
            where=exact.output,
            error=error,
        )
    return ValueSpectrum(from_input, from_constants, aim.values, counts, error)


def _add_at(total: Float[Tensor, "lengths batch"], gradient: Polynomial, value: Tensor) -> None:
    """⟨coefficient of t^m, value⟩ per example, added to row m."""
    parts = (gradient.stack * value).reshape(len(gradient.stack), total.shape[1], -1).sum(-1)
    total[gradient.low : gradient.high] += parts.to(total.dtype)

"""A scalar of the output as a sum over the terms of the stream, and the check of that sum."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid.form import Linearised
from unbraid.results import Examples, Result, said_of, sum_error
from unbraid.results.rows import Row, as_rows


@dataclass(frozen=True, eq=False, repr=False)
class Attribution(Result):
    """A scalar of the output split over the terms of the stream, the head frozen at the input: direct attribution.

    Attributes:
        names: the terms.
        values: what each term adds to the target, [terms, batch].
        constants: what the head adds by itself, and what reaches it by other ways than the stream, [batch].
        target: the scalar that is explained, [batch].
        error: ‖Σ values + constants − target‖∞ relative to the largest of them all.
        summed: whether examples influence one another: then the batch's sum is split, and batch is 1.
        parts: the values by the entries of a dimension of the stream, [terms, batch, size]: positions, or the streams
            of hyper-connections; None where none was asked for.
    """

    names: tuple[str, ...]
    values: Float[Tensor, "terms batch"]
    constants: Float[Tensor, " batch"]
    target: Float[Tensor, " batch"]
    error: float
    summed: bool = False
    parts: Float[Tensor, "terms batch size"] | None = None

    columns = (("term", "{term}"), ("contribution", "{value:+.4g}"))

    @property
    def caption(self) -> str:
        """How exact the sum is."""
        return f"the contributions sum to the target to {self.error:.1e}{said_of(self.summed)}"

    def total(self) -> Float[Tensor, " batch"]:
        """The sum of all contributions."""
        return self.values.sum(0) + self.constants

    def table(self) -> Table:
        """Mean contribution of each term over the batch."""
        table = super().table()
        table.caption_justify = "center"
        return table

    def rows(self) -> list[Row]:
        """One row per term and one for the head: what it adds, averaged over the batch."""
        means = [*self.values.mean(1).tolist(), float(self.constants.mean())]
        return as_rows({"term": (*self.names, "head"), "value": means})

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """What each term and the head add, averaged over the batch."""
        from unbraid.draw import contributions

        names, means = zip(*(row.values() for row in self.rows()), strict=True)
        return contributions(names, means, ax=ax)


def attributed(
    names: tuple[str, ...], parts: Float[Tensor, "terms batch"], head: Linearised, examples: Examples
) -> Attribution:
    """The contributions with the head's own, checked against the target."""
    constants, target = (_of(examples, value) for value in (head.constant, head.target))
    error = sum_error(torch.cat([parts, constants[None]]), target)
    head.check_sum(error, "attribute: the contributions must sum to the target")
    return Attribution(names, parts, constants, target, error, examples.summed)


def kept_apart(attribution: Attribution, stream: str, values: Tensor, along: int, head: Linearised) -> Attribution:
    """The same, with the contributions of each entry of a dimension of the stream.

    Raises:
        ValueError: there is no such dimension, or it counts the examples.
    """
    examples, gradient = head.examples, head.gradients[stream]
    counts = examples.owners[stream].dimension if stream in examples.owners else None
    free = [d for d in range(gradient.ndim) if d != counts]
    if along + gradient.ndim * (along < 0) not in free:
        raise ValueError(
            f"attribute: along is one of the dimensions {free} of the stream {list(gradient.shape)}"
            f"{'' if counts is None else f'; {counts} counts the examples'}; {along} came."
        )
    parts = []
    for entry in range(gradient.shape[along]):
        alone = torch.zeros_like(gradient)
        alone.select(along, entry).copy_(gradient.select(along, entry))
        parts.append(examples.dot(stream, values, alone))
    return replace(attribution, parts=torch.stack(parts, -1))


def _of(examples: Examples, value: Tensor) -> Tensor:
    """One number for each example; their sum, where another place than the head has joined them."""
    return value if len(value) == examples.count else value.sum(0, keepdim=True)

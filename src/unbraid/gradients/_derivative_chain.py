"""The derivative of the output as a product of one factor per block (Equations 11.3 and 11.6 of Prince 2023).

Three blocks on one trunk, h0 → h1 → h2 → h3: the *stations* are x, h0, h1, h2, h3, y, and a *link* is the part of the
graph between two of them. Each link has a Jacobian for each example, and

    ∂y/∂x = ∂y/∂h3 · ∂h3/∂h2 · ∂h2/∂h1 · ∂h1/∂h0 · ∂h0/∂x

Examples are told apart first, since a stream need not have its examples along a dimension of its own. What a link is,
and how its Jacobian is had, is in `_chain_link`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Inexact
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid.form import Linearised, ResidualForm, gradient_error
from unbraid.gradients._chain_link import Factor, Layout, Link
from unbraid.graph import Segment, makes, reads, subgraph
from unbraid.results import Examples, Result, check_sum, relative_error
from unbraid.results.rows import Row, as_rows

_SMALL = 512  # elements of one example's stream up to which its Jacobian is written out


@dataclass(frozen=True, eq=False, repr=False)
class DerivativeChain(Result):
    """The derivative of the output as a product of one factor per block.

    In a plain network ∂h_k/∂h_{k−1} is the layer's Jacobian (Equation 11.3 of Prince 2023); in a residual one it is I +
    ∂f_k/∂h_{k−1}, whose product written out has the terms of Equation 11.6.

    Attributes:
        factors: from the input to the output.
        gradient: the product of all factors pulled back from the output's sum, [*source].
        error: ‖product − autograd‖∞ / ‖autograd‖∞ for it.
        summed: whether examples influence one another: then the batch is one example here, and batch is 1.
    """

    factors: tuple[Factor, ...]
    gradient: Inexact[Tensor, " *source"]
    error: float
    summed: bool = False

    columns = (
        ("factor", "{factor}"),
        ("largest singular value", "{largest:.4g}"),
        ("smallest", "{smallest:.4g}"),
    )

    @property
    def caption(self) -> str:
        """How exact the product is."""
        together = "; examples influence one another: the batch is one example" if self.summed else ""
        return f"the product equals autograd's gradient to {self.error:.1e}{together}"

    def to_dict(self) -> dict[str, Any]:
        """Names, singular values and error as plain values."""
        ends = [{"name": f.name, "largest": f.largest.tolist(), "smallest": f.smallest.tolist()} for f in self.factors]
        return {"factors": ends, "error": self.error, "summed": self.summed}

    def rows(self) -> list[Row]:
        """One row per factor: its extreme singular values, averaged over the batch."""
        return as_rows(
            {
                "factor": [f.name for f in self.factors],
                "largest": [float(f.largest.mean()) for f in self.factors],
                "smallest": [float(f.smallest.mean()) for f in self.factors],
            }
        )

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The extreme singular values of the factors, averaged over the batch."""
        from unbraid.draw.gradients import chain

        names, largest, smallest = zip(*(row.values() for row in self.rows()), strict=True)
        return chain(names, largest, smallest, ax=ax)


@outside_modes
def derivative_chain(
    form: ResidualForm, args: Any, kwargs: Mapping[str, Any] | None = None, *, small: int = _SMALL, steps: int = 24
) -> DerivativeChain:
    """The factors of Equation 11.3, or of 11.6 for a residual network, at one input.

    Where a trunk leads through all blocks, ∂y/∂x = ∂y/∂h_K · ∏_k ∂h_k/∂h_{k−1} · ∂h_0/∂x. The product of the factors is
    pulled back from the sum of the output, and compared with autograd's gradient, the model's own where it is at hand.

    Args:
        form: a traced model, or the chain of a plain one.
        args: its positional inputs; a bare tensor means (tensor,). Where examples influence one another, as rows of a
            batch norm in training do, the whole batch is one example.
        kwargs: its keyword inputs.
        small: the most elements of one example's streams for which Jacobians are written out; beyond, singular values
            come from Golub-Kahan-Lanczos bidiagonalisation.
        steps: of Lanczos.

    Returns:
        One factor for each block of the trunk that reaches the output, and what lies before and after them.

    Raises:
        ValueError: blocks of this form do not follow one another on one trunk.
        InexactError: the product departs from autograd by more than rounding.
    """
    exact = form.exact
    inputs = exact.inputs(args, kwargs)
    stations = _stations(exact)
    streams = tuple(stream for _, stream in stations)
    values = exact.values(args, kwargs, (*streams, *exact.graph.inputs))
    places, summed = _told_apart(exact, inputs, values, streams)
    factors = []
    cotangent = torch.ones_like(values[exact.output])
    for (_, start), (name, end) in reversed(list(pairwise(stations))):
        link = Link(exact, inputs, values, start, end)
        factors.append(link.factor(name, Layout.of(link, places), small, steps))
        cotangent = link.pull(cotangent)
    whole = Link(exact, inputs, values, streams[0], streams[-1]).pull(torch.ones_like(values[exact.output]))
    error = relative_error(cotangent, whole)
    check_sum(
        error,
        "derivative_chain: the product of the factors must be the gradient",
        precision=exact.precision,
        graph=exact.graph,
        where=exact.output,
        departs="it departs",
    )
    own = gradient_error(form, args, kwargs)
    error = error if math.isnan(own) else max(error, own)
    return DerivativeChain(tuple(reversed(factors)), cotangent, error, summed)


def _told_apart(
    form: ResidualForm, inputs: Mapping[str, Any], values: Mapping[str, Any], streams: Sequence[str]
) -> tuple[dict[str, Tensor], bool]:
    """The places of each example's elements in the streams, [batch, elements]; and whether the batch is one example.

    What an example's part of the output depends on is its part of a stream: a random product with the output tells.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(values[form.output].shape, generator=generator, dtype=torch.float64, device="cpu")
    shape = form.streams[form.output].shape
    batch = shape.index("batch") if "batch" in shape else 0

    def product(outputs: Mapping[str, Any]) -> Tensor:
        rows = outputs[form.output] * drawn.to(outputs[form.output])
        return rows.movedim(batch, 0).flatten(1).sum(1) if rows.ndim > 1 else rows.reshape(-1)

    linear = Linearised.of(form, form.graph, inputs, product)
    told = linear.examples_of(linear.gradients_at(streams))
    by_stream = {stream: told.places(stream, values[stream]) for stream in streams}
    if any(places is None for places in by_stream.values()):
        told = Examples(1, True, {})
        by_stream = {stream: told.places(stream, values[stream]) for stream in streams}
    return {stream: places for stream, places in by_stream.items() if places is not None}, told.summed


def _stations(form: ResidualForm) -> list[tuple[str, str]]:
    """The streams h_0, ..., h_K between the blocks of the trunk, with the source before and the output after them.

    Each must part the graph: nothing that carries data may go around it.
    """
    stations = [("", form.sources[0])]
    top = {block.index for block in form.blocks}
    adds = [add for add in form.adds if add.block in top]
    for add, after in zip(adds, [*adds[1:], None], strict=True):
        if add is adds[0]:
            stations.append(("before", add.fork))
        name = form.blocks[add.block].name
        stations.append((name, after.fork if after is not None else form.end))
    stations.append(("after", form.output))
    kept = [stations[0]]
    for name, stream in stations[1:]:
        if stream == kept[-1][1]:  # no computation lies between
            if name not in ("before", "after"):
                raise ValueError(_no_chain(form))
            continue
        kept.append((name, stream))
    for (_, start), (_, end) in pairwise(kept):
        if _goes_around(form, start, end):
            raise ValueError(_no_chain(form))
    return kept


def _goes_around(form: ResidualForm, start: str, end: str) -> bool:
    """Whether data reach the end by a way that does not pass the start."""
    reached = {start}
    for step in subgraph(form.graph, (end,), given=(start,)).steps:
        size_only = step.size_only if isinstance(step, Segment) else frozenset()
        carrying = {stream for stream in reads(step) if stream in form.graph.reached and stream not in size_only}
        if not carrying <= reached:
            return True
        if carrying:
            reached.update(makes(step))
    return False


def _no_chain(form: ResidualForm) -> str:
    return (
        f"derivative_chain: the {len(form.blocks)} blocks of this form do not follow one another on one trunk, so that "
        "its derivative is no product of one factor a block. gradient_spectrum takes any form."
    )

"""The derivative of the output as a product of one factor per block (Equations 11.3 and 11.6 of Prince 2023).

Three blocks on one trunk, h0 → h1 → h2 → h3: the *stations* are x, h0, h1, h2, h3, y, and a *link* is the part of the
graph between two of them. Each link has a Jacobian for each example, and

    ∂y/∂x = ∂y/∂h3 · ∂h3/∂h2 · ∂h2/∂h1 · ∂h1/∂h0 · ∂h0/∂x

Examples are told apart first, since a stream need not have its examples along a dimension of its own (`_Layout`). Small
Jacobians are written out; of large ones the extreme singular values come from products with vectors (`_lanczos`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Inexact
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid.form import Linearised, ResidualForm, gradient_error
from unbraid.gradients._lanczos import extreme_singular_values
from unbraid.graph import Graph, Segment, makes, reads, subgraph
from unbraid.graph.state import detached
from unbraid.results import Brief, Examples, Result, check_sum, relative_error
from unbraid.results.rows import Row, as_rows
from unbraid.walk import run

_SMALL = 512  # elements of one example's stream up to which its Jacobian is written out


@dataclass(frozen=True, eq=False, repr=False)
class Factor(Brief):
    """One factor of the chain rule: ∂h_k/∂h_{k−1}, for each example.

    Attributes:
        name: of the block, or "before" and "after" for what lies before the first and after the last one.
        jacobian: [batch, out, in], the streams flattened; None where they are too large to write it out.
        largest: the largest singular value, [batch].
        smallest: the smallest, [batch]; from a Krylov space, and so an upper bound, where there is no Jacobian.
    """

    name: str
    jacobian: Float[Tensor, "batch out in"] | None
    largest: Float[Tensor, " batch"]
    smallest: Float[Tensor, " batch"]


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
        link = _Link(exact, inputs, values, start, end)
        layout = _Layout(_parts(places[start], values[start]), _parts(places[end], values[end]))
        factors.append(link.factor(name, layout, small, steps))
        cotangent = link.pull(cotangent)
    whole = _Link(exact, inputs, values, streams[0], streams[-1]).pull(torch.ones_like(values[exact.output]))
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
        stations.append((name, after.fork if after is not None else form.stream))
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


class _Link:
    """The part of a graph from one station to the next, as a function of one stream."""

    def __init__(
        self, form: ResidualForm, inputs: Mapping[str, Any], values: Mapping[str, Any], start: str, end: str
    ) -> None:
        self.form, self.end, self.start = form, end, start
        self.part: Graph = subgraph(form.graph, (end,), given=(start,))
        self.given = {**inputs, **{s: values[s] for s in self.part.inputs if s in values}}
        self.at, self.to = values[start], values[end]
        self.state = detached(form.state)

    def __call__(self, stream: Tensor) -> Tensor:
        """The end of the link, as a function of its start even where no gradient joins the two."""
        result: Tensor = run(self.part, self.state, {**self.given, self.start: stream})[self.end]
        return result if result.requires_grad or not stream.requires_grad else result + 0 * stream.flatten()[0]

    def pull(self, cotangent: Tensor) -> Tensor:
        """J^T g."""
        leaf = self.at.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self(leaf), leaf, cotangent, materialize_grads=True)
        return gradient

    def factor(self, name: str, layout: "_Layout", small: int, steps: int) -> Factor:
        if max(layout.sizes) <= small:
            jacobian = self._written_out(layout)
            values = torch.linalg.svdvals(jacobian.double())
            return Factor(name, jacobian, values[:, 0], values[:, -1])
        push, pull = self._maps()
        largest, smallest = extreme_singular_values(
            lambda v: layout.ended(push(layout.begun(v, _real(self.at)))),
            lambda u: layout.started(pull(layout.finished(u, _real(self.to)))),
            layout.started(_real(self.at)),
            steps,
        )
        return Factor(name, None, largest, smallest)

    def _by_parts(self, leaf: Tensor) -> Tensor:
        """The link as a function of real numbers: a complex one is two."""
        return _real(self(torch.view_as_complex(leaf) if self.at.is_complex() else leaf))

    def _written_out(self, layout: "_Layout") -> Tensor:
        """One row of every example's Jacobian a backward pass: examples do not influence one another."""
        leaf = _real(self.at).detach().requires_grad_()
        with torch.enable_grad():
            end = self._by_parts(leaf)
            units = torch.eye(layout.sizes[1], dtype=end.dtype, device=end.device)
            seeds = torch.stack([layout.finished(unit.expand(layout.end.shape), end) for unit in units])
            (stack,) = torch.autograd.grad(end, leaf, seeds, is_grads_batched=True, materialize_grads=True)
        return stack.flatten(1)[:, layout.start].movedim(1, 0)

    def _maps(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """J v and J^T u; J v is the transpose of the linear map u -> J^T u."""
        leaf = _real(self.at).detach().requires_grad_()
        # J v takes a second derivative, which fused kernels of attention have none of.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            end = self._by_parts(leaf)
            weights = torch.zeros_like(end).requires_grad_()
            (pulled,) = torch.autograd.grad(end, leaf, weights, create_graph=True, materialize_grads=True)

        def push(v: Tensor) -> Tensor:
            return torch.autograd.grad(pulled, weights, v, retain_graph=True, materialize_grads=True)[0]

        def pull(u: Tensor) -> Tensor:
            return torch.autograd.grad(end, leaf, u, retain_graph=True, materialize_grads=True)[0]

        return push, pull


def _real(tensor: Tensor) -> Tensor:
    """A complex tensor by its real and imaginary parts."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _parts(places: Tensor, value: Tensor) -> Tensor:
    """The places of an example's elements, of both parts where these are complex."""
    return torch.stack([2 * places, 2 * places + 1], -1).flatten(1) if value.is_complex() else places


@dataclass(frozen=True, eq=False)
class _Layout:
    """Streams at the two ends of a link as [batch, elements], and back.

    Attributes:
        start: the places of each example's elements in the flattened stream where the link begins.
        end: the same where it ends.
    """

    start: Tensor
    end: Tensor

    @property
    def sizes(self) -> tuple[int, int]:
        """How many elements an example has at each end."""
        return self.start.shape[1], self.end.shape[1]

    def started(self, stream: Tensor) -> Tensor:
        return stream.flatten()[self.start]

    def ended(self, stream: Tensor) -> Tensor:
        return stream.flatten()[self.end]

    def begun(self, rows: Tensor, like: Tensor) -> Tensor:
        return _put(rows, self.start, like)

    def finished(self, rows: Tensor, like: Tensor) -> Tensor:
        return _put(rows, self.end, like)


def _put(rows: Tensor, places: Tensor, like: Tensor) -> Tensor:
    """[batch, elements] as a stream."""
    flat = torch.empty(like.numel(), dtype=rows.dtype, device=rows.device)
    flat[places.flatten()] = rows.flatten()
    return flat.reshape(like.shape)

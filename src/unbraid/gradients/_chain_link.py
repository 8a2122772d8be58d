"""One link of the chain of derivatives: the part of a graph between two stations, and its Jacobian for each example.

Where a stream keeps its examples is told by a `Layout`: the places of each example's elements at the two ends of the
link. A small Jacobian is written out, one backward pass per row for all examples at once; of a large one the extreme
singular values come from products with vectors (`_lanczos`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from unbraid.form import ResidualForm
from unbraid.gradients._lanczos import extreme_singular_values
from unbraid.graph import Graph, subgraph
from unbraid.graph.state import detached
from unbraid.results import Brief
from unbraid.walk import run

__all__ = ["Factor", "Layout", "Link"]


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


@dataclass(frozen=True, eq=False)
class Layout:
    """Streams at the two ends of a link as [batch, elements], and back.

    Attributes:
        start: the places of each example's elements in the flattened stream where the link begins.
        end: the same where it ends.
    """

    start: Tensor
    end: Tensor

    @staticmethod
    def of(link: "Link", places: Mapping[str, Tensor]) -> "Layout":
        """The layout of a link, from the places of each example's elements in the streams."""
        return Layout(_parts(places[link.start], link.at), _parts(places[link.end], link.to))

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


class Link:
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

    def factor(self, name: str, layout: Layout, small: int, steps: int) -> Factor:
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

    def _written_out(self, layout: Layout) -> Tensor:
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


def _put(rows: Tensor, places: Tensor, like: Tensor) -> Tensor:
    """[batch, elements] as a stream."""
    flat = torch.empty(like.numel(), dtype=rows.dtype, device=rows.device)
    flat[places.flatten()] = rows.flatten()
    return flat.reshape(like.shape)

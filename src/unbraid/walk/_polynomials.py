"""A gradient by path length: the walk whose cotangents are polynomials in t, times t on entering a branch.

Three blocks in a chain, g the cotangent of the output, and J1, J2, J3 the branches' Jacobians: walking back,

    after block 3     g + t J3ᵀg
    after block 2     g + t (J2ᵀg + J3ᵀg) + t² J2ᵀJ3ᵀg
    after block 1     ...                            1, 3, 3, 1 paths of length 0, 1, 2, 3

so that K(K+1)/2 products with branches serve all 2^K paths. Only the live degrees are kept, `low` to `high` − 1.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from unbraid.graph import Add, Graph, Segment
from unbraid.walk._lengths import Lengths
from unbraid.walk._tape import Tape, is_nothing, nothing


@dataclass(frozen=True)
class Polynomial:
    """A polynomial in t whose coefficients are cotangents: Σ_i stack[i] t^(low + i).

    Attributes:
        low: the lowest live degree.
        stack: the coefficients of the live degrees, one after the other.
    """

    low: int
    stack: Shaped[Tensor, "degrees *stream"]

    @property
    def high(self) -> int:
        """One more than the highest live degree."""
        return self.low + len(self.stack)

    def over(self, low: int, high: int) -> "Polynomial":
        """The same polynomial with live degrees low to high − 1: zeros where there was nothing."""
        if (low, high) == (self.low, self.high):
            return self
        if is_nothing(self.stack):
            return Polynomial(low, nothing(self.stack, high - low, *self.stack.shape[1:]))
        stack = self.stack.new_zeros((high - low, *self.stack.shape[1:]))
        stack[self.low - low : self.high - low] = self.stack
        return Polynomial(low, stack)


@dataclass(frozen=True)
class Polynomials:
    """The algebra of the gradient by path length: the walk multiplies ∏ (P_k)(S_k + t·J_k) from the left.

    Only live degrees are carried, so that a chain of K blocks costs K(K+1)/2 branch products, not K².

    Attributes:
        graph: the graph that is walked.
        tape: a run of it.
        lengths: what counts as length.
        max_length: the longest paths that are wanted; degrees only grow on the way, so longer ones are let go at once.
        chunk: how many cotangents are pulled back at once; by default all.
    """

    graph: Graph
    tape: Tape
    lengths: Lengths
    max_length: int | None = None
    chunk: int | None = None

    def seed(self, cotangent: Tensor) -> Polynomial:
        """The constant polynomial: at the output every path has length 0."""
        return Polynomial(0, cotangent[None])

    def plus(self, a: Polynomial, b: Polynomial) -> Polynomial:
        """The sum, over the union of the live degrees."""
        if b.low < a.low:
            a, b = b, a
        if is_nothing(a.stack) or is_nothing(b.stack):
            low, high = a.low, max(a.high, b.high)
            return (b if is_nothing(a.stack) else a).over(low, high)
        if (a.low, a.high) == (b.low, b.high):
            return Polynomial(a.low, a.stack + b.stack)
        if not a.low < b.low <= a.high <= b.high:
            low, high = a.low, max(a.high, b.high)
            return Polynomial(low, a.over(low, high).stack + b.over(low, high).stack)
        # What a chain does at every block, in one pass over the memory: b is a, shifted, and they overlap.
        only, both = b.low - a.low, a.high - b.low
        total = a.stack.new_empty((b.high - a.low, *a.stack.shape[1:]))
        total[:only] = a.stack[:only]
        torch.add(a.stack[only:], b.stack[:both], out=total[only : only + both])
        total[only + both :] = b.stack[both:]
        return Polynomial(a.low, total)

    def enter(self, add: Add, operand: int, value: Polynomial) -> Polynomial:
        """t·g for a branch that counts, g otherwise; in the operand's own type."""
        low = value.low + self.lengths.of(add, operand)
        stack = add.part(operand, value.stack)
        if self.max_length is not None:
            low = min(low, self.max_length + 1)
            stack = stack[: self.max_length + 1 - low]
        dtype = self.graph.streams[dict(add.operands)[operand]].dtype
        return Polynomial(low, stack if stack.dtype is dtype else stack.to(dtype))

    def pull(self, segment: Segment, values: tuple[Polynomial | None, ...]) -> tuple[Polynomial | None, ...]:
        """Every coefficient through J^T."""
        live = [value for value in values if value is not None and len(value.stack)]
        if not live:
            return (None,) * len(segment.inputs)
        low, high = min(value.low for value in live), max(value.high for value in live)
        stacks = tuple(
            None if value is None or not len(value.stack) else value.over(low, high).stack for value in values
        )
        pulled = self.tape.pull(segment, stacks, self.chunk)
        return tuple(None if stack is None else Polynomial(low, stack) for stack in pulled)

    def coefficients(self, value: Polynomial | None, like: Tensor, lengths: int) -> Tensor:
        """The coefficients of t^0 .. t^(lengths − 1) as one stack; zeros where the walk brought nothing."""
        if value is None:
            return torch.zeros((lengths, *like.shape), dtype=like.dtype, device=like.device)
        return value.over(0, lengths).stack

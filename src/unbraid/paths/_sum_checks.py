"""Sums over paths against autograd: of a spectrum, with its lengths against the path counts, and of parts.

The check of a spectrum looks at the lengths too. A shift by one degree that is lost at one block leaves the sum equal
to the gradient. A second backward pass would cost more than the one gradient that a check may cost, so the live degrees
are compared with the lengths that have paths; a loss on one of several parallel branches can still pass unseen, and
only brute force in the tests sees it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from unbraid.form import TARGET, Linearised, ResidualForm, explained
from unbraid.graph import Add, Graph, Segment, Step, Stream, subgraph
from unbraid.graph.state import detached
from unbraid.results import Target, relative_error, sum_error
from unbraid.walk import BlockSet, Lengths, Polynomial, run

_HALF = 0.5


def spectrum_error(linear: Linearised, place: str, polynomial: Polynomial | None, counts: Sequence[int]) -> float:
    """‖Σ c_m − autograd‖∞ relative to the largest of them all, by one ordinary backward pass to the place.

    The sum does not see a path that is counted at the wrong length. The number of paths does, at no cost: a length has
    a coefficient where it has paths. Where it has none, because a branch passes no gradient or because a length was
    lost, a second backward pass, in which every branch counts ½, tells the one from the other.

    Raises:
        InexactError: the sum departs from autograd, or the lengths are wrong.
    """
    reference, like = _Reference.at(linear, place), linear.tape.values[place]
    error = sum_error(_terms(polynomial, like, 1.0), reference.gradient())
    reference.check_sum(error, "gradient_spectrum: the lengths must sum to the gradient")
    if not _alike(polynomial, counts):
        departs = sum_error(_terms(polynomial, like, _HALF), reference.gradient(linear.lengths, _HALF))
        rule = "gradient_spectrum: the lengths must sum, times ½ for each branch, to the gradient with branches halved,"
        reference.check_sum(departs, rule)
    return error


def parts_error(linear: Linearised, place: str, whole: Tensor, blocks: BlockSet, part: Tensor) -> float:
    """The whole gradient, and the part through some blocks, Σ_{T⊆S} (−1)^|T| g(T), against backward passes with cuts.

    Raises:
        InexactError: one departs from autograd by more than rounding.
    """
    reference = _Reference.at(linear, place)
    plain = reference.gradient()
    through = plain
    for size in range(1, len(blocks) + 1):
        for cut in combinations(blocks, size):
            only = Lengths({block: linear.lengths.weights[block] for block in cut})
            through = through + (-1) ** size * reference.gradient(only, 0.0)
    errors = {"sum to the gradient": relative_error(whole, plain)}
    # Relative to the whole: a part through two far blocks can be a small difference of large gradients.
    errors[f"through {blocks} equal the gradient's loss where they are cut"] = float(
        (part - through).abs().max() / plain.abs().max().clamp_min(torch.finfo(plain.dtype).tiny)
    )
    for rule, error in errors.items():
        reference.check_sum(error, f"gradient_parts: the parts must {rule}")
    return max(errors.values())


def model_error(
    form: ResidualForm, total: Tensor, place: str, args: Any, kwargs: Mapping[str, Any] | None, target: Target
) -> float:
    """The sum against autograd's gradient in the form with its own casts."""
    function = partial(explained, form, target=target)
    linear = Linearised.of(form, form.graph, form.inputs(args, kwargs), function)
    return relative_error(total, _Reference.at(linear, place).gradient().to(total))


def largest_of(*errors: float) -> float:
    """The largest error of those that were measured."""
    return max((error for error in errors if error == error), default=math.nan)


def weakened(graph: Graph, lengths: Lengths, t: float) -> Graph:
    """The same values, but a gradient passes each branch that counts times t."""

    def weak(value: Tensor) -> Tensor:
        return t * value + (value - t * value).detach()

    steps: list[Step] = []
    streams = dict(graph.streams)
    for step in graph.steps:
        if isinstance(step, Add):
            operands: dict[int, str] = dict(step.operands)
            for operand, stream in step.operands:
                if lengths.of(step, operand):
                    operands[operand] = name = f"{stream} times t at {step.output}"
                    steps.append(Segment(name, (stream,), (name,), weak, (), "branch", step.block, operand))
                    streams[name] = replace(streams[stream], id=name) if stream in streams else Stream(name)
            branches = tuple(operands.get(j) for j in range(len(step.branches)))
            step = replace(step, branches=branches)
        steps.append(step)
    return replace(graph, streams=streams, steps=tuple(steps))


def _alike(polynomial: Polynomial | None, counts: Sequence[int]) -> bool:
    """Whether the live degrees are the lengths that have paths."""
    lengths = [length for length, count in enumerate(counts) if count]
    if polynomial is None or not lengths:
        return polynomial is None and not lengths
    return (polynomial.low, polynomial.high) == (lengths[0], lengths[-1] + 1)


def _terms(polynomial: Polynomial | None, like: Tensor, t: float) -> Tensor:
    """c_m t^m, one after the other."""
    if polynomial is None:
        return torch.zeros_like(like)[None]
    if t == 1:
        return polynomial.stack
    powers = torch.tensor([t**m for m in range(polynomial.low, polynomial.high)], device="cpu").to(polynomial.stack)
    return polynomial.stack * powers.reshape(-1, *[1] * like.ndim)


@dataclass(frozen=True, eq=False)
class _Reference:
    """Ordinary backward passes to a place, by autograd alone.

    Attributes:
        linear: the run whose target is differentiated.
        place: the stream by which it is.
        part: what lies between the two.
    """

    linear: Linearised
    place: str
    part: Graph

    @staticmethod
    def at(linear: Linearised, place: str) -> "_Reference":
        return _Reference(linear, place, subgraph(linear.graph, (TARGET,), given=(place,)))

    def gradient(self, lengths: Lengths | None = None, t: float = 1.0) -> Tensor:
        """The gradient; with lengths, passing each branch that they count times t."""
        graph = self.part if lengths is None else weakened(self.part, lengths, t)
        leaf = self.linear.tape.values[self.place].detach().requires_grad_()
        with torch.enable_grad():
            output = run(graph, detached(self.linear.state), {**self.linear.given, self.place: leaf})[TARGET]
            if not output.requires_grad:  # all ways from the place pass integers or detached tensors
                return torch.zeros_like(leaf)
            (gradient,) = torch.autograd.grad(output, leaf, self.linear.seed, materialize_grads=True)
        return gradient

    def check_sum(self, error: float, rule: str) -> None:
        """Refuse what departs from it by more than rounding."""
        self.linear.check_sum(error, rule, where=self.place, departs=f"at {self.place!r} they depart")

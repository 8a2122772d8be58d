"""A gradient split by the number of branches that a path passes (Equation 11.6, summed by length)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from unbraid._modes import outside_modes
from unbraid._renamed import split_before
from unbraid.discover import BlockLike, every_block
from unbraid.form import TARGET, Linearised, ResidualForm, gradient_error
from unbraid.graph import SKIP, Graph, Segment, Step, makes, reads, subgraph
from unbraid.graph.state import joined
from unbraid.paths._length_statistics import ByLength, per_example
from unbraid.paths._spectrum_place import add_of, block_of, place_of
from unbraid.paths._sum_checks import largest_of, model_error, spectrum_error
from unbraid.results import Target, said_of
from unbraid.walk import Lengths, Polynomial, Polynomials, path_counts, run, walk


@dataclass(frozen=True, eq=False, repr=False)
class GradientSpectrum(ByLength):
    """∂target/∂source split by the number of branches that a path passes (Equation 11.6, summed by length).

    Attributes:
        gradients: one gradient per length 0..L; they sum to the gradient.
        norms: the 2-norm per example of each, averaged over the batch, [L+1].
        signed: ⟨g_m, g⟩/‖g‖² per length, averaged over the batch: what each length adds along the whole gradient.
        counts: the number of paths of each length, exact.
        parameter_norms: at a block, the norm of each length's part of the gradient of its parameters, over the whole
            batch; None at a source.
        error: ‖Σ gradients − autograd‖∞ / ‖autograd‖∞; nan where it was not measured. The reference is the model's own
            autograd where the model is at hand: the form's gradient, which the lengths sum to, is compared with it.
        model_error: the same against the model with its own casts to narrower types (a float64 Llama computes its norms
            in float32); equal to `error` where there are none.
        summed: whether examples influence one another: then norms are those of the whole batch's gradient.
        target: the scalar itself, averaged over the batch.
    """

    gradients: Inexact[Tensor, "lengths *source"]
    norms: Float[Tensor, " lengths"]
    signed: Float[Tensor, " lengths"]
    counts: tuple[int, ...]
    parameter_norms: Float[Tensor, " lengths"] | None
    error: float
    model_error: float
    summed: bool = False
    target: float = float("nan")

    entries = (
        *("counts", "norms", "share", "signed", "parameter_norms", "mean_length", "effective"),
        *("error", "model_error", "summed", "target"),
    )

    @property
    def caption(self) -> str:
        """Between which lengths the gradient travels, and how exact the sum is."""
        spread = self.most_of_the_norm
        return f"{spread}; the sum equals autograd's gradient to {self.error:.1e}{said_of(self.summed)}"

    def total(self) -> Inexact[Tensor, "*source"]:
        """The sum over all lengths: the gradient."""
        return self.gradients.sum(0)


@split_before
@outside_modes
def gradient_spectrum(
    form: ResidualForm,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: Target,
    at: BlockLike = "source",
    max_length: int | None = None,
    check: bool = True,
    nested: bool = False,
    output: str | int | None = None,
    chunk: int | None = None,
) -> GradientSpectrum:
    """The gradient of a target, split exactly over the lengths of all paths.

    The cotangent travels back as a polynomial in t, times t on entering a branch: g ← S^T g + t·J^T g. Its coefficient
    of t^m is the sum over all paths that pass m branches; K(K+1)/2 branch products serve all 2^K paths of a chain.

    Args:
        form: a traced model.
        args: its positional inputs; a bare tensor means (tensor,).
        kwargs: its keyword inputs.
        target: what to explain, one number per example: a class, or a tensor [batch] of them, for an output [batch,
            classes]; a pair (position, class), each an int or a tensor [batch], for [batch, positions, classes]; a list
            of these, one for each example; or a function of what the model returns that gives a tensor [batch].
        output: which of several outputs indices pick from, by name or number; see `ResidualForm.explaining`.
        at: "source", where the first trunk begins; the name of another of `form.sources`; or a block, by index or name:
            the gradient at that block's sum, which is that at its branch's output (Equation 11.6), with the branches
            after it counted; of a concatenation that at the whole, in which the branch has its span.
        max_length: leave out longer paths; then the sum is not checked, as it is not the gradient.
        check: compare the sum with autograd in the form and in the model itself, and the lengths with the number of
            paths, for three gradients more; for four where a branch passes no gradient.
        nested: open the blocks inside branches: entering the outer branch adds 0 and each inner branch 1.
        chunk: how many cotangents are pulled back at once. Memory is a forward run's activations plus two stacks of
            at most K+1 cotangents of the trunk; within a segment it is `chunk` times that of one backward pass.

    Raises:
        ValueError: the target does not fit the output, or there is no such source.
        IndexError: there is no such block.
        InexactError: the sum departs from autograd by more than rounding, or a path was counted at a wrong length.
    """
    form = form.explaining(output)
    linear = Linearised.at(form, args, kwargs, target, nested=nested)
    algebra = Polynomials(linear.graph, linear.tape, linear.lengths, max_length, chunk)
    block, place = block_of(linear.form, at), place_of(linear.form, at)
    polynomial = walk(linear.graph, algebra, {TARGET: algebra.seed(linear.seed)}, [place]).get(place)
    counts = counts_of(linear.graph, linear.lengths, TARGET, place, max_length)
    gradients = algebra.coefficients(polynomial, linear.tape.values[place], len(counts))
    error = of_model = float("nan")
    if check and max_length is None:
        error = of_model = spectrum_error(linear, place, polynomial, counts)
        own = gradient_error(form, args, kwargs, target)
        if form.exact is form:
            error = of_model = largest_of(error, own)
        else:
            of_model = largest_of(model_error(form, gradients.sum(0), place, args, kwargs, target), own)
    parameter_norms = None if block is None else _parameter_norms(linear, block, polynomial, len(counts))
    examples = linear.examples_of(linear.gradients_at([place]))
    mean = float(linear.values.double().mean())
    norms, signed = per_example(gradients, gradients.sum(0), examples, place)
    return GradientSpectrum(gradients, norms, signed, counts, parameter_norms, error, of_model, examples.summed, mean)


def counts_of(graph: Graph, lengths: Lengths, output: str, place: str, max_length: int | None) -> tuple[int, ...]:
    """The number of paths of each length from a place to an output, up to a length."""
    upto = None if max_length is None else max_length + 1
    return tuple(path_counts(graph, lengths, output, place))[:upto] or (0,)


def _parameter_norms(
    linear: Linearised, block: int, polynomial: Polynomial | None, lengths: int
) -> Float[Tensor, " lengths"]:
    """The gradient of a block's parameters is linear in that of its branch's output: one pull per length."""
    form = linear.form
    add = add_of(form, block)
    branches = {j: stream for j, stream in add.operands if j != SKIP}
    inside, given_to_it = _inside(form, block)
    part = subgraph(form.graph, tuple(branches.values()), given=given_to_it)
    read = set[str]().union(*(step.params for step in inside if isinstance(step, Segment)))
    names = sorted(read & form.learned)
    norms = torch.zeros(lengths, dtype=form.dtype.to_real(), device="cpu")
    if polynomial is None or not names:
        return norms
    leaves = {name: form.state[name].detach().requires_grad_() for name in names}
    given = {stream: linear.tape.values[stream] for stream in part.inputs}
    with torch.enable_grad():
        outputs = run(part, joined(form.state, leaves), given)
    results = {j: outputs[stream] for j, stream in branches.items() if outputs[stream].requires_grad}
    for length, cotangent in enumerate(polynomial.stack, start=polynomial.low):
        seeds = [add.part(j, cotangent).to(result.dtype) for j, result in results.items()]
        pulled = torch.autograd.grad(
            [*results.values()], list(leaves.values()), seeds, retain_graph=True, allow_unused=True
        )
        norms[length] = sum(float(g.abs().double().square().sum()) for g in pulled if g is not None) ** 0.5
    return norms


def _inside(form: ResidualForm, block: int) -> tuple[list[Step], tuple[str, ...]]:
    """The steps of a block's branches, nested blocks included, and the streams that these take from outside.

    What a branch reads of another trunk, or of an encoder, was computed by blocks whose parameters are not its own.
    """
    family = {inner.index for inner in every_block([form.all_blocks[block]])}
    branch = [s for s in form.graph.segments if s.block in family and (s.role == "branch" or s.block != block)]
    inside: list[Step] = [*branch, *(add for add in form.adds if add.block in family - {block})]
    made = set(chain.from_iterable(makes(step) for step in inside))
    wanted = dict.fromkeys(chain.from_iterable(reads(step) for step in inside))
    return inside, tuple(stream for stream in wanted if stream not in made)

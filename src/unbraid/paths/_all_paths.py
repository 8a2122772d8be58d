"""Every path of a form, or the largest of them: value and gradient along each.

The walk unfolds the tree of shared suffixes. Where there are too many paths, the search goes on with those whose
gradient is largest and says that it may have missed some (`exact`).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from unbraid._modes import outside_modes
from unbraid._progress import progress
from unbraid._renamed import split_before
from unbraid.form import TARGET, Linearised, ResidualForm
from unbraid.graph import Step, makes
from unbraid.paths._single_paths import Paths, paths_of
from unbraid.results import Target, sum_error
from unbraid.walk import Masks, PathStack, distinct, pass_back, path_counts

_MOST = 2**20
_BUDGET = 2**21  # numbers that wait at once: 8 MiB in float32, which a cache holds: twice as fast as all at once


@split_before
@outside_modes
def all_paths(
    form: ResidualForm,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: Target,
    linearize: Literal["frozen", "jacobian"] = "frozen",
    nested: bool = False,
    output: str | int | None = None,
    budget: int = _BUDGET,
) -> Paths:
    """Every path from the sources to the target, one by one (figure 11.4b).

    The tree of shared suffixes is unfolded from the output: about 2^(K+1) branch products for the 2^K paths of a chain.

    Args:
        form: a traced model.
        args: its positional inputs; a bare tensor means (tensor,).
        kwargs: its keyword inputs.
        target: what to explain, one number per example: a class, or a tensor [batch] of them, for an output [batch,
            classes]; a pair (position, class), each an int or a tensor [batch], for [batch, positions, classes]; a list
            of these, one for each example; or a function of what the model returns that gives a tensor [batch].
        output: which of several outputs indices pick from, by name or number; see `ResidualForm.explaining`.
        linearize: "frozen", where the values of all paths and the constants sum to the target; or "jacobian", where the
            gradients sum to the gradient.
        nested: open the blocks inside branches.
        budget: how many numbers may wait at once; beyond it the paths are taken in parts. Peak memory is a forward
            run's activations plus about three times this many numbers.

    Raises:
        ValueError: there are more than 2^20 paths, or the target does not fit.
        InexactError: all paths together depart from the whole by more than rounding.
    """
    linear = Linearised.at(form.explaining(output), args, kwargs, target, frozen=linearize == "frozen", nested=nested)
    number = sum(path_counts(linear.graph, linear.lengths, TARGET))
    if number > _MOST:
        raise ValueError(
            f"all_paths: there are {number:,} paths, and at most {_MOST:,} are listed. "
            "gradient_spectrum sums over all of them; top_paths and sample_paths pick some."
        )
    return _everything(linear, budget)


@split_before
@outside_modes
def top_paths(
    form: ResidualForm,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: Target,
    k: int = 10,
    linearize: Literal["frozen", "jacobian"] = "frozen",
    nested: bool = False,
    output: str | int | None = None,
    beam: int = 256,
    limit: int = _MOST,
) -> Paths:
    """The k paths with the largest |value|, averaged over the batch, the largest first.

    Exact through `all_paths` up to `limit` paths. Beyond, a beam search from the output keeps at each addition the
    `beam` partial paths whose gradient times the stream is largest, and says `exact=False`.

    Args:
        form: a traced model.
        args: its positional inputs; a bare tensor means (tensor,).
        kwargs: its keyword inputs.
        target: what to explain, one number per example: a class, or a tensor [batch] of them, for an output [batch,
            classes]; a pair (position, class), each an int or a tensor [batch], for [batch, positions, classes]; a list
            of these, one for each example; or a function of what the model returns that gives a tensor [batch].
        output: which of several outputs indices pick from, by name or number; see `ResidualForm.explaining`.
        k: how many paths.
        linearize: "frozen" or "jacobian".
        nested: open the blocks inside branches.
        beam: how many partial paths the search keeps.
        limit: up to how many paths all of them are taken, at most 2^20; large models search sooner.

    Raises:
        ValueError: the target does not fit, or k < 1.
    """
    if k < 1:
        raise ValueError(f"top_paths: k must be at least 1, and {k} came.")
    linear = Linearised.at(form.explaining(output), args, kwargs, target, frozen=linearize == "frozen", nested=nested)
    number = sum(path_counts(linear.graph, linear.lengths, TARGET))
    if number <= min(limit, _MOST):
        paths, exact = _everything(linear, _BUDGET), True
    else:
        paths, exact = beam_search(linear, max(beam, k)), False
    order = paths.values.abs().mean(1).argsort(descending=True)[:k]
    best = paths[order]
    return Paths(**{**vars(best), "exact": exact})


def _everything(linear: Linearised, budget: int) -> Paths:
    """All paths of a linear."""
    algebra = Masks(linear.graph, linear.tape, linear.lengths.columns)
    waiting = {TARGET: algebra.seed(linear.seed)}
    parts = []
    with progress("paths", sum(path_counts(linear.graph, linear.lengths, TARGET))) as step:
        for part in _explore(linear, algebra, waiting, len(linear.graph.steps), budget):
            parts.append(part)
            step(len(part[0]))
    return _whole(linear, parts)


def beam_search(linear: Linearised, beam: int) -> Paths:
    """The paths that survive when only the `beam` best partial paths are kept at each stream."""
    algebra = Masks(linear.graph, linear.tape, linear.lengths.columns)
    waiting = {TARGET: algebra.seed(linear.seed)}
    ends: list[Ends] = []
    for step in reversed(linear.graph.steps):
        ends += _arrived(linear, waiting, makes(step))
        pass_back(linear.graph, algebra, step, waiting)
        for stream, value in waiting.items():
            if len(value.masks) > beam:
                merits = _merits(value.stack, linear.tape.values[stream])
                kept = merits.topk(beam).indices
                waiting[stream] = PathStack(value.masks[kept.cpu()], value.stack[kept])
    ends += _arrived(linear, waiting, linear.graph.inputs)
    return paths_of(linear, *_joined(ends), exact=False)


def _merits(stack: Tensor, value: Tensor) -> Tensor:
    """|⟨gradient, stream⟩| of each partial path, averaged over rows: those of examples, in most models."""
    products = stack * value
    return products.reshape(*products.shape[:2], -1).sum(2).abs().mean(1) if value.ndim else products.abs()


Ends = tuple[Tensor, Tensor, Tensor]


def _explore(
    linear: Linearised, algebra: Masks, waiting: dict[str, PathStack], number: int, budget: int
) -> Iterator[Ends]:
    """Walk on from before step `number`, in two halves wherever too much waits."""
    for place in range(number, 0, -1):
        step: Step = linear.graph.steps[place - 1]
        yield from _arrived(linear, waiting, makes(step))  # nothing passes a source, which the step may make
        pass_back(linear.graph, algebra, step, waiting)
        if sum(value.stack.numel() for value in waiting.values()) > budget:
            halves = _halves(waiting)
            if halves is not None:
                waiting.clear()
                for half in halves:
                    yield from _explore(linear, algebra, half, place - 1, budget)
                return
    yield from _arrived(linear, waiting, linear.graph.inputs)


def _halves(waiting: dict[str, PathStack]) -> list[dict[str, PathStack]] | None:
    """Part all paths by one choice: paths with equal choices so far stay together, so that they still add up."""
    masks = torch.cat([value.masks for value in waiting.values()])
    taken = (masks == masks[0]).sum(0)
    column = int((taken - len(masks) / 2).abs().argmin())
    if int(taken[column]) == len(masks):
        return None
    choice = masks[0, column]
    halves = []
    for side in (True, False):
        half = {}
        for stream, value in waiting.items():
            rows = ((value.masks[:, column] == choice) == side).nonzero()[:, 0]
            if len(rows):
                half[stream] = PathStack(value.masks[rows], value.stack[rows.to(value.stack.device)])
        halves.append(half)
    return halves


def _arrived(linear: Linearised, waiting: Mapping[str, PathStack], streams: Iterable[str]) -> Iterator[Ends]:
    """Masks, values and squared norms per example of the paths that have reached a source among some streams."""
    for source in streams:
        if source in linear.graph.sources and source in waiting:
            value = waiting[source]
            along = linear.examples.dot(source, value.stack, linear.tape.values[source])
            yield value.masks, along, linear.examples.sums(source, value.stack.abs().square())


def _joined(parts: list[Ends]) -> Ends:
    """Masks, values and squared norms of all paths: one that ends at several sources adds up."""
    masks = torch.cat([part[0] for part in parts])
    unique, place = distinct(masks)
    values, squares = torch.cat([part[1] for part in parts]), torch.cat([part[2] for part in parts])
    place = place.to(values.device)
    zero = values.new_zeros((len(unique), values.shape[1]))
    return unique, zero.index_add(0, place, values), zero.index_add(0, place, squares)


def _whole(linear: Linearised, parts: list[Ends]) -> Paths:
    paths = paths_of(linear, *_joined(parts), exact=True)
    error = sum_error(torch.cat([paths.values, paths.constants[None]]), paths.target)
    linear.check_sum(error, f"all_paths: the {len(paths):,} paths and the constants must sum to the target")
    return Paths(**{**vars(paths), "error": error})

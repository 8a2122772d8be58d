from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from unbraid._progress import progress
from unbraid.errors import InexactError
from unbraid.form import ResidualForm, Split, Target, relative_error, tolerance
from unbraid.graph import Step, makes
from unbraid.paths._paths import Paths
from unbraid.paths._setting import Setting
from unbraid.walk import Masks, PathStack, distinct, pass_back, path_counts

_MOST = 2**20
_BUDGET = 2**21  # numbers that wait at once: 8 MiB in float32, which a cache holds: twice as fast as all at once


def all_paths(
    form: ResidualForm,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: Target,
    linearize: Literal["frozen", "jacobian"] = "frozen",
    nested: bool = False,
    split: Split = None,
    budget: int = _BUDGET,
) -> Paths:
    """Every path from the sources to the target, one by one (figure 11.4b).

    The tree of shared suffixes is unfolded from the output: about 2^(K+1) branch products for the 2^K paths of a chain.

    Args:
        form: a traced model.
        args: its positional inputs; a bare tensor means (tensor,).
        kwargs: its keyword inputs.
        target: class indices, a (position, class) pair, or a function of the output that gives one number per example.
        linearize: "frozen", where the values of all paths and the constants sum to the target; or "jacobian", where the
            gradients sum to the gradient.
        nested: open the blocks inside branches.
        split: "heads" for a branch a head in attention, where the graph shows the heads.
        budget: how many numbers may wait at once; beyond it the paths are taken in parts. Peak memory is a forward
            run's activations plus about three times this many numbers.

    Raises:
        ValueError: there are more than 2^20 paths, the target does not fit, or there is nothing to split.
        InexactError: all paths together depart from the whole by more than rounding.
    """
    setting = Setting.of(form, args, kwargs, target, linearize, nested, split)
    number = sum(path_counts(setting.graph, setting.lengths, setting.form.output))
    if number > _MOST:
        raise ValueError(
            f"all_paths: there are {number:,} paths, and at most {_MOST:,} are listed. "
            "gradient_spectrum sums over all of them; top_paths and sample_paths pick some."
        )
    algebra = Masks(setting.graph, setting.tape, setting.columns)
    waiting = {setting.form.output: algebra.seed(setting.aim.cotangent)}
    parts = []
    with progress("paths", number) as step:
        for part in _explore(setting, algebra, waiting, len(setting.graph.steps), budget):
            parts.append(part)
            step(len(part[0]))
    return _whole(setting, parts)


def top_paths(
    form: ResidualForm,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: Target,
    k: int = 10,
    linearize: Literal["frozen", "jacobian"] = "frozen",
    nested: bool = False,
    split: Split = None,
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
        target: what is explained.
        k: how many paths.
        linearize: "frozen" or "jacobian".
        nested: open the blocks inside branches.
        split: "heads" for a branch a head in attention, where the graph shows the heads.
        beam: how many partial paths the search keeps.
        limit: up to how many paths all of them are taken, at most 2^20; large models search sooner.

    Raises:
        ValueError: the target does not fit, there is nothing to split, or k < 1.
    """
    if k < 1:
        raise ValueError(f"top_paths: k must be at least 1, and {k} came.")
    setting = Setting.of(form, args, kwargs, target, linearize, nested, split)
    number = sum(path_counts(setting.graph, setting.lengths, setting.form.output))
    if number <= min(limit, _MOST):
        found, exact = (
            all_paths(form, args, kwargs, target=target, linearize=linearize, nested=nested, split=split),
            True,
        )
    else:
        found, exact = beam_search(setting, max(beam, k)), False
    order = found.values.abs().mean(1).argsort(descending=True)[:k]
    best = found[order]
    return Paths(**{**vars(best), "exact": exact})


def beam_search(setting: Setting, beam: int) -> Paths:
    """The paths that survive when only the `beam` best partial paths are kept at each stream."""
    algebra = Masks(setting.graph, setting.tape, setting.columns)
    waiting = {setting.form.output: algebra.seed(setting.aim.cotangent)}
    ends: list[Ends] = []
    for step in reversed(setting.graph.steps):
        ends += _arrived(setting, waiting, makes(step))
        pass_back(setting.graph, algebra, step, waiting)
        for stream, value in waiting.items():
            if len(value.masks) > beam:
                merits = (value.stack * setting.tape.values[stream]).flatten(2).sum(2).abs().mean(1)
                kept = merits.topk(beam).indices
                waiting[stream] = PathStack(value.masks[kept.cpu()], value.stack[kept])
    ends += _arrived(setting, waiting, setting.graph.inputs)
    return _paths(setting, ends, exact=False, error=float("nan"))


Ends = tuple[Tensor, Tensor, Tensor]


def _explore(
    setting: Setting, algebra: Masks, waiting: dict[str, PathStack], number: int, budget: int
) -> Iterator[Ends]:
    """Walk on from before step `number`, in two halves wherever too much waits."""
    for place in range(number, 0, -1):
        step: Step = setting.graph.steps[place - 1]
        yield from _arrived(setting, waiting, makes(step))  # nothing passes a source, which the step may make
        pass_back(setting.graph, algebra, step, waiting)
        if sum(value.stack.numel() for value in waiting.values()) > budget:
            halves = _halves(waiting)
            if halves is not None:
                waiting.clear()
                for half in halves:
                    yield from _explore(setting, algebra, half, place - 1, budget)
                return
    yield from _arrived(setting, waiting, setting.graph.inputs)


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


def _arrived(setting: Setting, waiting: Mapping[str, PathStack], streams: Iterable[str]) -> Iterator[Ends]:
    """Masks, values and squared norms per example of the paths that have reached a source among some streams."""
    for source in streams:
        if source in setting.graph.sources and source in waiting:
            value = waiting[source]
            rows = value.stack.flatten(2)
            along = (rows * setting.tape.values[source].flatten(1)).sum(2)
            yield value.masks, along, rows.square().sum(2)


def _joined(parts: list[Ends]) -> Ends:
    """A path that ends at several sources adds up."""
    masks = torch.cat([part[0] for part in parts])
    unique, place = distinct(masks)
    values, squares = (torch.cat([part[i] for part in parts]) for i in (1, 2))
    place = place.to(values.device)
    zero = values.new_zeros((len(unique), values.shape[1]))
    return unique, zero.index_add(0, place, values), zero.index_add(0, place, squares)


def _whole(setting: Setting, parts: list[Ends]) -> Paths:
    made = _paths(setting, parts, exact=True, error=float("nan"))
    error = relative_error(made.values.sum(0) + made.constants, setting.aim.values)
    bound = tolerance("sum", setting.form.precision)
    if not error <= bound:
        raise InexactError(
            f"all_paths: the {len(made):,} paths and the constants must sum to the target to {bound:g}; "
            f"they depart by {error:.2e}.",
            where=setting.form.output,
            error=error,
        )
    return Paths(**{**vars(made), "error": error})


def _paths(setting: Setting, parts: list[Ends], *, exact: bool, error: float) -> Paths:
    masks, values, squares = _joined(parts)
    return Paths(
        blocks=setting.blocks,
        masks=masks,
        lengths=setting.length_of(masks),
        values=values,
        norms=squares.sqrt().mean(1),
        constants=setting.constant,
        target=setting.aim.values,
        linearize=setting.linearize,
        exact=exact,
        error=error,
    )

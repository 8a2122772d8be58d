"""The ways to make a model smaller, and what each must hold against.

The key-value cache is part of the check: the last token with cached predecessors against the same without. A layer that
is gone leaves a gap in the numbers by which the others find their part of the cache.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from torch import Tensor, nn

from unbraid.form import ResidualForm
from unbraid.pruning._form_module import FormModule
from unbraid.pruning._model_calls import distance, outputs
from unbraid.pruning._pretrained import cached_error, is_pretrained, mend, uniform
from unbraid.pruning._pruning import How
from unbraid.pruning._surgery import counters, idle_members, renumber_rest, substitutes, take_out
from unbraid.pruning._unused_modules import Path, Work, beginnings, members
from unbraid.results import check_error, tolerance


@dataclass(frozen=True, eq=False)
class Candidate:
    """A candidate for the smaller model.

    Attributes:
        model: the smaller model.
        how: the way in which it was made.
        modules: the paths of the members taken out and of the modules replaced.
        configuration: what was changed in its configuration.
    """

    model: nn.Module
    how: How
    modules: tuple[str, ...] = ()
    configuration: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be done, and what must come of it.

    Attributes:
        model: the whole model.
        form: its form.
        without: the form without the branches.
        work: what is left to do for which modules.
        example: the inputs at which candidates are checked.
        wanted: the outputs of the form without the branches there.
    """

    model: nn.Module
    form: ResidualForm
    without: ResidualForm
    work: Work
    example: tuple[tuple[Any, ...], dict[str, Any]]
    wanted: list[Tensor]

    def checked(self, candidate: Candidate) -> float:
        """The candidate's error, where it is rounding alone."""
        bound = tolerance("forward", self.form.dtype) if self.form.tolerance is None else self.form.tolerance
        error = distance(outputs(candidate.model, *self.example), self.wanted)
        check_error(error, bound, f"its outputs depart from form.without(...) by {error:.1e}", where="output")
        return error

    @cached_property
    def caches(self) -> bool:
        """Whether the model has a key-value cache with which it gives the outputs that it gives without."""
        if self.model.training or not is_pretrained(self.model):
            return False
        try:
            return cached_error(self.model, *self.example) <= tolerance("sum", self.form.dtype)
        except Exception:  # a model of another kind, which wants other arguments
            return False

    def check_cache(self, candidate: Candidate) -> None:
        """What holds for the model with its cache must hold for the candidate."""
        error = cached_error(candidate.model, *self.example) if self.caches else 0.0
        message = f"with a key-value cache it departs from itself by {error:.1e}"
        check_error(error, tolerance("sum", self.form.dtype), message, where="the cache")


def ways(task: Task) -> Iterator[tuple[str, Callable[[], Candidate]]]:
    """The ways to do it, the plainest first."""
    going = idle_members(task.model, task.work)
    every = {member for _, member in members(task.model)}
    inner = {member for path, member in going if not every.isdisjoint(beginnings(path))}
    outer = [pair for pair in going if pair[1] not in inner]
    if network := _described_by_unbraid(task):
        yield "its own `without`", network
    if going:
        yield "by taking out members", lambda: _cut(task, going)
    if inner and outer:
        yield "by taking out members of the outermost lists", lambda: _cut(task, outer)
    yield "by replacing modules", lambda: _cut(task, [])
    yield "as a graph", lambda: Candidate(FormModule(task.without).train(task.model.training), "graph")


def _cut(task: Task, going: list[tuple[Path, Path]]) -> Candidate:
    pruned = copy.deepcopy(task.model)
    counting = counters(pruned)
    replacements = substitutes(pruned, task.work, [member for _, member in going], *task.example)
    cuts = take_out(pruned, going)
    changes = mend(task.model, pruned, cuts, *task.example) if cuts and is_pretrained(pruned) else ()
    for substitute in replacements:
        substitute.apply()
    removed = chain.from_iterable(cut.removed for cut in cuts)
    modules = (*removed, *(substitute.name for substitute in replacements))
    candidate = Candidate(pruned, "branches" if replacements else "members", modules, changes)
    try:
        task.check_cache(candidate)
    except Exception:  # the model's own code, which may read a cache that the first layer no longer fills
        if not replacements or not uniform(pruned):
            raise
        renumber_rest(pruned, counting)
        task.check_cache(candidate)
    return candidate


def _described_by_unbraid(task: Task) -> Callable[[], Candidate] | None:
    """A network of unbraid.nn says in its config what it lacks, so that it can be built again."""
    from unbraid.nn import PlainNetwork, ResidualNetwork  # here, as tracing a model needs no network of ours

    model = task.model
    if not isinstance(model, PlainNetwork | ResidualNetwork):
        return None
    places = [home[:2] for home in task.work.homes]
    names = ("layers", "blocks")
    if not all(len(place) == 2 and place[0] in names and place[1].isdigit() for place in places):
        return None
    gone = [int(place[1]) for place in places]
    return lambda: Candidate(model.without(*gone), "members", tuple(map(".".join, places)))

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from unbraid.errors import InexactError
from unbraid.form import ResidualForm, as_call, tolerance
from unbraid.prune._call import distance, flops, outputs
from unbraid.prune._module import FormModule
from unbraid.prune._pretrained import cached_error, is_pretrained, mend, uniform
from unbraid.prune._pruning import How, Pruning
from unbraid.prune._surgery import alike, counters, idle_members, renumber_rest, substitutes, take_out
from unbraid.prune._work import Path, Work, homes, members, work


def prune(
    model: nn.Module,
    form: ResidualForm,
    remove: Iterable[int | tuple[int, int]],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The model without some of its branches: pruning(model, form, remove).model.

    Args:
        model: the model from which the form was made. It is not changed; the result has copies of its parameters.
        form: the form of the whole model.
        remove: blocks by their index, or branches as (block, branch), branches from 0.
        args: positional inputs for the check; by default those of the trace.
        kwargs: keyword inputs for the check.

    Returns:
        A module of the model's own class, or, with a warning, the graph of the form as a module.

    Raises:
        IndexError: there is no such block or branch.
        ValueError: the form was made from another model, is itself without some branches, or keeps no example.
        InexactError: the result's outputs are not those of form.without(...).
    """
    made = pruning(model, form, remove, args, kwargs)
    if made.how == "graph":
        reasons = "; ".join(made.refused) or "no module of it does the work of these branches alone"
        warnings.warn(
            f"prune: {type(model).__name__} cannot be made smaller as it is ({reasons}). The result is the graph of "
            "form.without(...) as a module: it computes the same, for the inputs for which the form holds.",
            stacklevel=2,
        )
    return made.model


def pruning(
    model: nn.Module,
    form: ResidualForm,
    remove: Iterable[int | tuple[int, int]],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Pruning:
    """Remove branches from a model, in the plainest way that computes what form.without(...) computes.

    1. Members of a ModuleList or Sequential that work for these branches alone are taken out of it; what counts along
       with the list, attributes and entries of a configuration, is mended.
    2. Elsewhere the modules of the branches are replaced by ones that return zeros and hold no parameters.
    3. Where the model's code does not take that, the form itself becomes a module.

    Which modules these are follows from where the operators of the branches were called. Each way is checked against
    form.without(...) on the example, and for a transformers model with a key-value cache against itself without one.

    Args:
        model: the model from which the form was made. It is not changed; the result has copies of its parameters.
        form: the form of the whole model.
        remove: blocks by their index, or branches as (block, branch), branches from 0.
        args: positional inputs for the check; by default those of the trace.
        kwargs: keyword inputs for the check.

    Raises:
        IndexError: there is no such block or branch.
        ValueError: the form was made from another model, is itself without some branches, or keeps no example.
        InexactError: the result's outputs are not those of form.without(...).
    """
    which = tuple(remove)
    example = _example(form, args, kwargs)
    _check_same(model, form)
    without = form.without(*which)
    task = _Task(model, form, without, work(form, without), example, outputs(without, *example))
    refused = []
    for said, way in _ways(task):
        try:
            made = way()
            error = task.checked(made)
        except Exception as failure:  # a model whose parts are missing raises whatever its code makes of that
            refused.append(f"{said}: {_line(failure)}")
            continue
        parameters = (_learned(model), _learned(made.model))
        counted = (flops(model, *example), flops(made.model, *example))
        return Pruning(
            made.model, made.how, which, made.modules, made.configuration, parameters, counted, error, tuple(refused)
        )
    raise InexactError(
        "prune: no way of making the model smaller gives the outputs of form.without(...).\n  " + "\n  ".join(refused),
        where="the output",
    )


def layers(model: nn.Module, form: ResidualForm) -> tuple[tuple[int, ...], ...]:
    """The blocks of each layer: those whose additions lie in one member of a list of like modules.

    A transformer's layer, say, is two blocks, attention and MLP: removed together they take the layer with them.

    Args:
        model: the model from which the form was made.
        form: its form.

    Returns:
        One group of blocks a layer, in order of execution; a block in no such list is a group of its own.
    """
    where = homes(form)
    like = [member for path, member in members(model) if alike(model.get_submodule(".".join(path)))]
    groups: dict[Path, list[int]] = {}
    for block in form.blocks:
        home = where.get(block.index, ())
        inside = [member for member in like if home[: len(member)] == member]
        groups.setdefault(inside[-1] if inside else (str(block.index), ""), []).append(block.index)
    return tuple(map(tuple, groups.values()))


@dataclass(frozen=True, eq=False)
class _Made:
    """A candidate."""

    model: nn.Module
    how: How
    modules: tuple[str, ...] = ()
    configuration: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Task:
    """What is to be done, and what must come of it."""

    model: nn.Module
    form: ResidualForm
    without: ResidualForm
    work: Work
    example: tuple[tuple[Any, ...], dict[str, Any]]
    wanted: list[Tensor]

    def checked(self, made: _Made) -> float:
        """The candidate's error, where it is rounding alone."""
        bound = tolerance("forward", self.form.dtype) if self.form.tolerance is None else self.form.tolerance
        error = distance(outputs(made.model, *self.example), self.wanted)
        if not error <= bound:
            raise InexactError(f"its outputs depart from form.without(...) by {error:.1e}", where="output", error=error)
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

    def check_cache(self, made: _Made) -> None:
        """What holds for the model with its cache must hold for the candidate."""
        error = cached_error(made.model, *self.example) if self.caches else 0.0
        if not error <= tolerance("sum", self.form.dtype):
            raise InexactError(
                f"with a key-value cache it departs from itself by {error:.1e}", where="the cache", error=error
            )


def _ways(task: _Task) -> Iterator[tuple[str, Callable[[], _Made]]]:
    """The ways to do it, the plainest first."""
    going = idle_members(task.model, task.work)
    inner = {member for path, member in going if any(path[: len(m)] == m for _, m in members(task.model))}
    outer = [pair for pair in going if pair[1] not in inner]
    if network := _described_by_unbraid(task):
        yield "its own `without`", network
    if going:
        yield "by taking out members", lambda: _cut(task, going)
    if inner and outer:
        yield "by taking out members of the outermost lists", lambda: _cut(task, outer)
    yield "by replacing modules", lambda: _cut(task, [])
    yield "as a graph", lambda: _Made(FormModule(task.without).train(task.model.training), "graph")


def _cut(task: _Task, going: list[tuple[Path, Path]]) -> _Made:
    pruned = copy.deepcopy(task.model)
    counting = counters(pruned)
    found = substitutes(pruned, task.work, [member for _, member in going], *task.example)
    cuts = take_out(pruned, going)
    changes = mend(task.model, pruned, cuts, *task.example) if cuts and is_pretrained(pruned) else ()
    for substitute in found:
        substitute.apply()
    modules = (*(name for cut in cuts for name in cut.removed), *(substitute.name for substitute in found))
    made = _Made(pruned, "branches" if found else "members", modules, changes)
    try:
        task.check_cache(made)
    except Exception:  # the model's own code, which may read a cache that the first layer no longer fills
        if not found or not uniform(pruned):
            raise
        renumber_rest(pruned, counting)
        task.check_cache(made)
    return made


def _described_by_unbraid(task: _Task) -> Callable[[], _Made] | None:
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
    return lambda: _Made(model.without(*gone), "members", tuple(map(".".join, places)))


def _example(form: ResidualForm, args: Any, kwargs: Mapping[str, Any] | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs to check at: those given, or those of the trace."""
    if args is not None or kwargs is not None:
        return as_call(() if args is None else args, kwargs)
    if form.origin is None or form.origin.example is None:
        raise ValueError(
            "prune: this form keeps no inputs to check the smaller model at. "
            "Give some: prune(model, form, remove, args)."
        )
    positional, keywords = form.origin.example
    return tuple(positional), dict(keywords)


def _check_same(model: nn.Module, form: ResidualForm) -> None:
    """The form must be the whole model's, with the weights that the model has now."""
    if form.deletions:
        raise ValueError(
            f"prune: give the form of the whole model, and all that is to go; this one is without {form.deletions}."
        )
    own = dict(model.named_parameters(remove_duplicate=False))
    for name in sorted(form.learned):
        if name not in own:
            raise ValueError(
                f"prune: the form was made from another model: {type(model).__name__} has no parameter {name!r}."
            )
        if not _equal(own[name], form.state[name]):
            raise ValueError(
                f"prune: the form was made from another model, or its weights were replaced since: {name!r} differs. "
                "Trace this model."
            )


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype is not b.dtype or a.device != b.device:
        return False
    return a.data_ptr() == b.data_ptr() or torch.equal(a, b)


def _learned(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _line(error: Exception) -> str:
    said = next((line for line in str(error).splitlines() if line.strip()), "")
    return said.strip() if isinstance(error, InexactError) else f"{type(error).__name__}: {said.strip()}"

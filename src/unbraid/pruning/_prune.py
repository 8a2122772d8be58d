"""A smaller model: try the ways of `_surgery_attempts`, the plainest first, and take the first whose outputs are right.

No way is trusted, and none is chosen by the name of a class: each candidate is a copy, run on the example and compared
with form.without(...). What was tried in vain is kept with its reason.
"""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unbraid._modes import outside_modes
from unbraid.capture import bare
from unbraid.capture.signature import as_call
from unbraid.discover import BranchLike, removal_of
from unbraid.errors import InexactError
from unbraid.form import ResidualForm
from unbraid.pruning._model_calls import flops, outputs
from unbraid.pruning._pruning import Pruning
from unbraid.pruning._surgery import alike
from unbraid.pruning._surgery_attempts import Task, ways
from unbraid.pruning._unsaveable import forbid_saving
from unbraid.pruning._unused_modules import Path, homes, members, work


def prune(
    model: nn.Module,
    form: ResidualForm,
    remove: Iterable[BranchLike],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The model without some of its branches: pruning(model, form, remove).model.

    Args:
        model: the model from which the form was made. It is not changed; the result has copies of its parameters.
        form: the form of the whole model.
        remove: blocks by index or name, or branches as (block, branch), as `form.without` takes them.
        args: positional inputs for the check; by default those of the trace.
        kwargs: keyword inputs for the check.

    Returns:
        A module of the model's own class, or, with a warning, the graph of the form as a module.

    Raises:
        IndexError: there is no such block or branch.
        ValueError: the form was made from another model, is itself without some branches, or keeps no example.
        InexactError: the result's outputs are not those of form.without(...).
    """
    smaller = pruning(model, form, remove, args, kwargs)
    if smaller.how == "graph":
        reasons = "; ".join(smaller.refused) or "no module of it does the work of these branches alone"
        warnings.warn(
            f"prune: {type(model).__name__} cannot be made smaller as it is ({reasons}). The result is the graph of "
            "form.without(...) as a module: it computes the same, for the inputs for which the form holds.",
            stacklevel=2,
        )
    return smaller.model


@outside_modes
def pruning(
    model: nn.Module,
    form: ResidualForm,
    remove: Iterable[BranchLike],
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
        remove: blocks by index or name, or branches as (block, branch), as `form.without` takes them.
        args: positional inputs for the check; by default those of the trace.
        kwargs: keyword inputs for the check.

    Raises:
        IndexError: there is no such block or branch.
        ValueError: the form was made from another model, is itself without some branches, or keeps no example.
        InexactError: the result's outputs are not those of form.without(...).
    """
    model, _ = bare(model)
    which = tuple(removal_of(form.blocks, part, "prune") for part in remove)
    _check_same(model, form)
    example = _example(form, args, kwargs)
    without = form.without(*which)
    task = Task(model, form, without, work(form, without), example, outputs(without, *example))
    refused = []
    for said, way in ways(task):
        try:
            candidate = way()
            error = task.checked(candidate)
        except Exception as failure:  # a model whose parts are missing raises whatever its code makes of that
            refused.append(f"{said}: {_line(failure)}")
            continue
        forbid_saving(without, model, candidate.model, candidate.modules)
        parameters = (_learned(model), _learned(candidate.model))
        counted = (flops(model, *example), flops(candidate.model, *example))
        return Pruning(
            candidate.model,
            candidate.how,
            which,
            candidate.modules,
            candidate.configuration,
            parameters,
            counted,
            error,
            tuple(refused),
        )
    raise InexactError(
        "prune: no way of making the model smaller gives the outputs of form.without(...).\n  " + "\n  ".join(refused),
        where="the output",
    )


@outside_modes
def layers(model: nn.Module, form: ResidualForm) -> tuple[tuple[int, ...], ...]:
    """The blocks of each layer: those whose additions lie in one member of a list of like modules.

    A transformer's layer, say, is two blocks, attention and MLP: removed together they take the layer with them.

    Args:
        model: the model from which the form was made.
        form: its form.

    Returns:
        One group of blocks per layer, in order of execution; a block in no such list is a group of its own.
    """
    model, _ = bare(model)
    where = homes(form)
    like = [member for path, member in members(model) if alike(model.get_submodule(".".join(path)))]
    groups: dict[Path, list[int]] = {}
    for block in form.blocks:
        home = where.get(block.index, ())
        inside = [member for member in like if home[: len(member)] == member]
        groups.setdefault(inside[-1] if inside else (str(block.index), ""), []).append(block.index)
    return tuple(map(tuple, groups.values()))


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
    if form.steering:
        raise ValueError("prune: vectors are added to this form, which the model does not have; give the form before.")
    if any(tensor.is_meta for tensor in form.state.values()):
        raise ValueError(
            "prune: on the meta device nothing can be checked; load the model's weights and trace it again."
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

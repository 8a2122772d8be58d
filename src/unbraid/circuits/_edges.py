"""What each block tells each later block, in any model whose form is known."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from unbraid._modes import outside_modes
from unbraid.circuits._attributed import attributed
from unbraid.circuits._effects import Function, Intervention
from unbraid.circuits._frozen import adds_constants, frozen
from unbraid.circuits._patched import patched
from unbraid.circuits._replacement import refuse_neither_or_both, replacements, values_at
from unbraid.circuits._study import EdgeStudy
from unbraid.discover.wiring import Wiring
from unbraid.errors import TargetError
from unbraid.form import ResidualForm, explained, inputs_of
from unbraid.results import Target, check_sum


@outside_modes
def edges(
    form: ResidualForm,
    clean: Any,
    corrupt: Any = None,
    *,
    target: Target | None = None,
    metric: Callable[[Any], Tensor] | None = None,
    method: str = "attribution",
    steps: int = 1,
    fill: str | None = None,
    by: str = "block",
    nested: bool = False,
    output: str | int | None = None,
) -> EdgeStudy:
    """The effect of every edge: what writer i adds to what reader j reads, replaced while all others see it clean.

    The stream that block j reads is a sum of what the input and the blocks before it have written (Equation 11.5).
    Replacing one summand for one reader, with the trunk up to it run anew, changes the target by the edge's effect:

        exact         reader j runs on it, and everything after responds (path patching, Wang et al. 2023)
        attribution   ⟨change of what i writes, gradient at i by way of j⟩, the derivative of exact: two forward runs
                      and one backward (EAP, Syed et al. 2023); with steps, averaged along a line (EAP-IG, Hanna et al.
                      2024)
        frozen        the same product in the frozen linearisation, constants included

    Args:
        form: a traced model.
        clean: its inputs: a tensor, a tuple of positional ones, or a dict of keyword ones.
        corrupt: inputs of the same sizes, at which what is written is taken to replace clean values; or none, with
            `fill`.
        target: what to explain, one number per example; see `unbraid.attribute`.
        metric: or a function of what the model returns that gives one number for the batch: a KL divergence, a mean
            logit difference.
        method: "attribution", "exact" or "frozen".
        steps: of "attribution", at how many points of the line from clean to corrupt sources gradients are taken.
        fill: "zero", or "mean" over the examples at each position, positions that the attention mask leaves out left
            out, in the place of a corrupt input.
        by: "block"; "branch" for one writer and one reader per branch; "head" for one per attention head as well.
        nested: blocks inside branches write and read in the place of those around them.
        output: which of several outputs indices pick from, by name or number; see `ResidualForm.explaining`.

    Returns:
        The effects, [writers, readers].

    Raises:
        ValueError: an argument is none of these; neither or both of target and metric, or of corrupt and fill.
        TargetError: the target does not fit what the model returns.
        DataError: clean and corrupt inputs have other sizes.
        InexactError: what must sum does not.
    """
    _refuse(method, steps, by)
    refuse_neither_or_both(corrupt, fill, "edges")
    form = (form.split("heads") if by == "head" else form).explaining(output).exact
    given, function = inputs_of(form, clean), function_of(form, target, metric, "edges")
    wiring = Wiring(form.graph, form.blocks, by != "block", nested)
    values = values_at(form, dict.fromkeys((*wiring.written, *form.sources)), given)
    instead = replacements(form, values, given, corrupt, fill)
    asked = Intervention(form, wiring, given, function, values, instead)
    if method == "exact":
        effects = patched(asked)
    elif method == "frozen":
        effects = frozen(asked)
    else:
        effects = attributed(asked, steps)
    if method != "frozen" and adds_constants(asked):
        effects = effects.with_constants()
    check_sum(
        effects.error,
        "edges: the readers' parts of a gradient, and a reader's edges, must sum to the whole",
        precision=form.precision,
        graph=form.graph,
        where=form.end,
    )
    return EdgeStudy(
        effects.writers,
        effects.readers,
        effects.per_example.mean(-1),
        effects.per_example,
        effects.target,
        effects.error,
        effects.interaction,
        method,
        "corrupt" if fill is None else fill,
        by,
        nested,
        steps,
        effects.summed,
        form,
    )


def _refuse(method: str, steps: int, by: str) -> None:
    if method not in ("attribution", "exact", "frozen"):
        raise ValueError(f'edges: method is "attribution", "exact" or "frozen"; {method!r} came.')
    refuse_unknown_by(by, "edges")
    if steps < 1 or (steps > 1 and method != "attribution"):
        raise ValueError(f'edges: steps is at least 1, and more than 1 for "attribution" alone; {steps} came.')


def refuse_unknown_by(by: str, call: str) -> None:
    """Refuse what no writer can be.

    Raises:
        ValueError: it is neither block, branch nor head.
    """
    if by not in ("block", "branch", "head"):
        raise ValueError(f'{call}: by is "block", "branch" or "head"; {by!r} came.')


def function_of(
    form: ResidualForm, target: Target | None, metric: Callable[[Any], Tensor] | None, call: str
) -> Function:
    """The target of a form's outputs by stream; or a metric, as the target of one example.

    Raises:
        ValueError: neither or both are given.
    """
    if (target is None) == (metric is None):
        raise ValueError(f"{call}: what is explained is target, one number per example, or metric, one per batch.")
    if target is not None:
        return partial(explained, form, target=target)
    assert metric is not None, "one of both is given"

    def of_batch(values: Mapping[str, Any]) -> Tensor:
        number = metric(form.signature.result(values))
        if not isinstance(number, Tensor) or number.numel() != 1:
            came = list(number.shape) if isinstance(number, Tensor) else type(number).__name__
            raise TargetError(f"metric: it must give one number for the batch, a scalar tensor; it gave {came}.")
        return number.reshape(1)

    return of_batch

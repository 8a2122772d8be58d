"""A form checked against its model: values at two inputs, every addition, and the gradient.

A form that departs is refused with the first block whose sum is not the model's, and with what is known of why.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch

from unbraid.capture import Draws, Run, drawing, exclusive, unwarned
from unbraid.capture.signature import as_call
from unbraid.discover import by_chance
from unbraid.errors import InexactError, UnbraidError
from unbraid.form._additions import StreamSizes, additions_of, run_uncut
from unbraid.form._compared import apart, at_hand, both, comparable, distance, reference_runs, uncut
from unbraid.form._core import Form
from unbraid.form._gradients import gradients_against_model
from unbraid.form._origin import Origin
from unbraid.form._second_input import Grown, another, batched, few_examples, growing
from unbraid.graph.state import joined
from unbraid.results import relative_error, tolerance
from unbraid.walk import run

_OTHERWISE = (
    "without gradients the model computes something else (by {:.1e}), and the form is the model as it is with them. "
    "Where that is the fast path of nn.TransformerEncoder, which leaves padded positions out, "
    "torch.backends.mha.set_fastpath_enabled(False) switches it off."
)


@dataclass(frozen=True)
class Verification:
    """How closely a form follows its model.

    Attributes:
        error: the largest of all the errors below, relative in the largest norm.
        outputs: ‖form(x) − model(x)‖∞ / ‖model(x)‖∞ at the given input.
        other_batch: the same at an input of another batch size; nan where there is none: the graph has every size built
            in, or the model itself does not take another.
            For one recorded run: at another input of its sizes; nan where the model's code goes another way there.
        additions: for each block ‖skip + Σ branches − sum‖∞ in the captured graph, relative to the largest of them all:
            0 where the graph of every block adds these operands and nothing else; otherwise measured at the first two
            examples, where each input is a batch of more and the model takes two.
        ratios: for each block ‖branches‖∞ / ‖skip‖∞, the smallest of its branches.
        tolerance: the largest error that is rounding alone.
        one_batch: why `other_batch` is nan; empty where it is not.
        gradients: ‖∂form − ∂model‖∞ / ‖∂model‖∞ of a random projection of the outputs, the largest over the inputs and
            parameters, by the model's own autograd; nan where it was not compared.
        unchecked: why it was not; None where it was.
        otherwise: what the model computes otherwise where no gradient is asked for; empty where it does not.
    """

    error: float
    outputs: float
    other_batch: float
    additions: tuple[float, ...]
    ratios: tuple[float, ...]
    tolerance: float
    one_batch: str = ""
    gradients: float = math.nan
    unchecked: str | None = None
    otherwise: str = ""

    @property
    def silent(self) -> tuple[int, ...]:
        """The blocks whose branch is so small beside the skip that the check could not see it go missing."""
        return tuple(block for block, ratio in enumerate(self.ratios) if not ratio > self.tolerance)


def verify(form: Form, args: Any, kwargs: Mapping[str, Any] | None = None) -> Verification:
    """Check a form against its model; see `ResidualForm.verify`."""
    if form.origin is None or form.edited:
        raise ValueError("verify: this form was edited, so there is no model to check it against.")
    positional, keywords = as_call(args, kwargs)
    bound = tolerance("forward", form.dtype) if form.tolerance is None else form.tolerance
    form.inputs(positional, keywords)  # what does not fit is told before the model is asked
    checked = _as_with_gradients(form, form.origin, positional, keywords, bound)
    if not checked.error <= bound:
        raise _inexact(form, checked, _departure(form, form.origin, form.inputs(positional, keywords), bound))
    with exclusive():
        gradients = gradients_against_model(form, *few_examples(form, positional, keywords))
        if gradients.unchecked is not None and batched(form, positional, keywords):  # two may be too few for the model
            gradients = gradients_against_model(form, positional, keywords)
    return replace(checked, gradients=gradients.error, unchecked=gradients.unchecked)


def _as_with_gradients(
    form: Form, origin: Origin, args: tuple[Any, ...], kwargs: dict[str, Any], bound: float
) -> Verification:
    """The comparison of values; a model that the form follows only where gradients are asked for is compared so.

    Its tracer asked for them. nn.TransformerEncoder is such a model: without, it leaves padded positions out, and hands
    back zeros there.
    """
    failure = None
    try:
        checked = _values(form, origin, args, kwargs, bound)
    except InexactError as error:
        failure, apart = error, error.error
    else:
        apart = checked.error
    if not apart <= bound and origin.model is not None:
        try:
            graded = _values(form, origin, args, kwargs, bound, graded=True)
        except UnbraidError:
            graded = None
        if graded is not None and graded.error <= bound:
            return replace(graded, otherwise=_OTHERWISE.format(apart))
    if failure is not None:
        raise failure
    return checked


def _values(
    form: Form,
    origin: Origin,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    bound: float,
    *,
    graded: bool = False,
) -> Verification:
    nested = unwarned("The PyTorch API of nested tensors")  # of which the fast path of nn.TransformerEncoder makes use
    with exclusive(), nested, reference_runs(form, origin, args, kwargs, graded=graded) as reference:
        sizes = StreamSizes(origin)
        outputs = distance(form, partial(at_hand, origin, reference), args, kwargs, sizes.see)
        additions, ratios = additions_of(form, origin, args, kwargs, sizes)
        other, alone_because = _elsewhere(form, reference, args, kwargs)
    errors = [outputs, *additions, *([] if math.isnan(other) else [other])]
    return Verification(max(errors), outputs, other, additions, ratios, bound, one_batch=alone_because)


def _departure(form: Form, origin: Origin, inputs: Mapping[str, Any], bound: float) -> int | None:
    """The first block whose sum is not the model's, or not that of its operands; None where all of them are."""
    totals = [total for _, _, total in origin.operands]
    known = {} if origin.model is None else dict(origin.model.state_dict(keep_vars=True))
    there = uncut(replace(form, state=joined(form.state, known)), origin, inputs, set(totals))
    added = {add.output for add in form.adds}
    kept = tuple(total for total in totals if total in added)
    with torch.no_grad(), drawing(Draws()):
        here = run(form.graph, form.state, inputs, keep=kept)
    sums = run_uncut(form, origin, inputs)[0]
    for block, (total, error) in enumerate(zip(totals, sums, strict=True)):
        if not error <= bound or total not in here or not relative_error(here[total], there[total]) <= bound:
            return block
    return None


def _inexact(form: Form, checked: Verification, block: int | None) -> InexactError:
    nothing = "  Infinite: nan and infinity cannot be compared. Look for them in the weights.\n"
    where = "the output" if block is None else f"block {block} ({form.blocks[block].name!r})"
    return InexactError(
        f"The form must follow the model to {checked.tolerance:g}; it departs at {where}.\n"
        f"  at the given input        {checked.outputs:.2e}\n"
        f"  at another batch size     {checked.other_batch:.2e}\n"
        f"  worst of the additions    {max(checked.additions, default=0.0):.2e}\n"
        f"{nothing if math.isinf(checked.error) else ''}"
        f"{_cause(form, checked)}{by_chance(form.graph)}",
        where=where,
        error=checked.error,
        given=not checked.outputs <= checked.tolerance,
    )


def _cause(form: Form, checked: Verification) -> str:
    """What is known of why: the model itself is asked once more before it is blamed."""
    assert form.origin is not None
    if form.origin.model is not None and form.origin.example is not None:
        args, kwargs = form.origin.example
        draws = Draws()
        with torch.no_grad(), reference_runs(form, form.origin, args, dict(kwargs)) as reference:
            first = comparable(reference(args, kwargs, draws))
            second = comparable(reference(args, kwargs, draws.again()))
        error = max(map(relative_error, first, second), default=0.0)
        if not error <= checked.tolerance:
            return f"  Two runs of the model at one input differ by {error:.2e}: it keeps something between runs."
    if checked.outputs <= checked.tolerance < checked.other_batch:
        return (
            "  At the given sizes the form is exact; at others the model's own code takes another way.\n"
            "  Trace it with tracer='dispatch' at the sizes you need: that form holds for them alone."
        )
    other = "export" if form.tracer == "dispatch" else "dispatch"
    return f"  The form is at fault: the model repeats itself. Trace it again, or try tracer={other!r}."


def _elsewhere(form: Form, reference: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, str]:
    """Form against model at another input of other sizes; or nan, and why there was none.

    Which sizes vary together is what the exporter found: a batch of many examples is cut to two, or all dimensions of
    one symbol grow by one. Whether they may vary at all the model itself tells, by running or not. A recorded run may
    hide a choice that the tracer did not see, so it is compared at an input of its own sizes; where it is known that
    the model's code would go another way there, that proves nothing.
    """
    why = "every size is built into the graph"
    sizes: list[tuple[Grown | None, int]] = [(grown, 1) for grown in growing(form, args, kwargs)]
    if sizes and batched(form, args, kwargs):
        sizes.insert(0, (sizes[0][0], -1))
    sizes = sizes or ([(None, 0)] if form.tracer == "dispatch" else [])
    broken = None
    for (grown, more), gently in product(sizes, (False, True)):
        other = another(args, kwargs, more=more, grown=grown, gently=gently)
        try:
            here, there = both(form, partial(_asked, reference), *other)
        except _RefusedError as refusal:
            why = str(refusal)
        except InexactError as error:  # a recorded run would go another way, or the form itself fails
            why, broken = str(error), error if error.__cause__ is not None else broken
        else:
            if any(bool(tensor.isfinite().any()) for tensor in there) or not any(t.numel() for t in there):
                return apart(here, there), ""
            why = "the model gives nothing finite at other values"
    if broken is not None:
        raise broken
    return math.nan, why


class _RefusedError(Exception):
    """The model itself fails at an input that nobody gave."""


def _asked(reference: Run, args: tuple[Any, ...], kwargs: Mapping[str, Any], draws: Draws) -> Any:
    """The model at an input that it may refuse."""
    try:
        return reference(args, kwargs, draws)
    except Exception as error:
        raise _RefusedError(f"the model itself refuses another input: {type(error).__name__}: {error}") from error

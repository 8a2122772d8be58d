"""A form's gradient against the model's own: what capture may lose shows in no value.

A graph of operators computes what the model computes, and may still have another gradient: a region of torch.no_grad
that was forgotten, a custom autograd.Function whose backward no tracer sees, a hook on a gradient. So the gradient of a
random projection of the outputs is taken twice, once by autograd through the model itself and once through the form,
for the floating-point inputs and the parameters that learn. Nothing is written to the model: gradients are asked for,
not accumulated.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unbraid._modes import outside_modes
from unbraid.capture import Draws
from unbraid.capture.signature import TensorSpec, as_call
from unbraid.capture.trees import leaves_of
from unbraid.discover import drawn
from unbraid.form._core import Form
from unbraid.form._gradient_distance import AsTheyCome, GradientCheck, compared
from unbraid.form._gradient_sources import (
    RANDOM,
    NotAtHand,
    Projection,
    Watch,
    model_at_hand,
    of_the_form,
    of_the_model,
)
from unbraid.form._target_segment import explained
from unbraid.graph.edits import widened
from unbraid.results import Target, check_error, relative_error, tolerance


@outside_modes
def gradient_error(
    form: Form, args: Any, kwargs: Mapping[str, Any] | None = None, target: Target | None = None
) -> float:
    """‖∂form − ∂model‖∞ / ‖∂model‖∞ at an input, of a target, or of the sum of the output that analyses explain.

    The reference is the model's own autograd. nan where there is none to ask: of a loaded or edited form, of a model
    that draws numbers or has been switched to another mode since it was traced.

    Raises:
        InexactError: the gradients, or the outputs, depart by more than rounding.
    """
    if drawn(form.graph):
        return math.nan
    positional, keywords = as_call(args, kwargs)
    leaves = leaves_of(form.signature.output)

    def explained_output(result: Any) -> list[Tensor]:
        pairs = zip(leaves, leaves_of(result), strict=True)
        values = {leaf.stream: value for leaf, value in pairs if isinstance(leaf, TensorSpec)}
        output = values[form.output] if target is None else explained(form, values, target, result)
        return [output]

    ones = Projection(explained_output, lambda outputs: list(map(torch.ones_like, outputs)))
    return gradients_against_model(form, positional, keywords, ones).error


def gradients_against_model(
    form: Form, args: tuple[Any, ...], kwargs: Mapping[str, Any], projection: Projection = RANDOM
) -> GradientCheck:
    """Compare the gradients of a projection of the outputs.

    Args:
        form: an unedited form.
        args: its positional inputs.
        kwargs: its keyword inputs.
        projection: of what the model returns, whose gradient is taken.

    Raises:
        InexactError: they depart by more than rounding; it names where.
    """
    kwargs = form.signature.completed(args, kwargs)
    draws = Draws()
    try:
        model = model_at_hand(form)
        (there, theirs), leaves = of_the_model(form, model, args, kwargs, projection, draws)
    except NotAtHand as reason:
        return GradientCheck(math.nan, unchecked=str(reason))
    except Exception as error:
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        return GradientCheck(
            math.nan, unchecked=f"the model's own autograd raises {type(error).__name__}: {line[:200]}"
        )

    def same_outputs(here: list[Tensor]) -> None:
        _same_outputs(form, here, there)
        there.clear()  # a language model's scores are its largest tensors, and gradients need room

    def again(dtype: torch.dtype | None) -> list[Tensor | None]:
        graph, state = (form.graph, form.state) if dtype is None else widened(form.graph, form.state)
        other = replace(form, graph=graph, state=state)
        return of_the_form(other, model, leaves, args, kwargs, projection, draws.again(), dtype=dtype)

    gradients = AsTheyCome(theirs)
    watch = Watch(same_outputs, gradients.gradient)
    of_the_form(form, model, leaves, args, kwargs, projection, draws.again(), watch=watch)
    return compared(form, leaves, gradients.departures(), again)


def _same_outputs(form: Form, here: list[Tensor], there: list[Tensor]) -> None:
    """A form whose values are others has another gradient, too."""
    bound = tolerance("forward", form.dtype) if form.tolerance is None else form.tolerance
    error = max((relative_error(a, b) for a, b in zip(here, there, strict=True)), default=0.0)
    message = (
        f"The form must follow the model to {bound:g}; at this input its output departs by {error:.2e}. "
        "Was the model changed since it was traced? Trace it again at this input."
    )
    check_error(error, bound, message, where="the output")

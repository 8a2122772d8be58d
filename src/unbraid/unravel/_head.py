"""What lies between the stream and the target, held at the given input: an affine map, pulled back once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from unbraid.form import Aim, Examples, ResidualForm, Target, explained, outputs_read
from unbraid.graph import subgraph
from unbraid.unravel._readout import readout
from unbraid.walk import freeze, record, run


@dataclass(frozen=True, eq=False)
class Head:
    """target = ⟨gradient, stream⟩ + constants per example, at the given input.

    Attributes:
        gradient: of the targets' sum with respect to the stream, the head frozen, [*stream].
        constants: what the head adds by itself, and what reaches it by other ways than the stream, [batch].
        target: the scalar, as the model computes it, [batch].
        examples: the examples, told apart at the stream; where they are not separate, batch is 1 here.
    """

    gradient: Inexact[Tensor, "*stream"]
    constants: Float[Tensor, " batch"]
    target: Float[Tensor, " batch"]
    examples: Examples


def pulled_back(form: ResidualForm, inputs: Mapping[str, Any], stream: str, value: Tensor, target: Target) -> Head:
    """Freeze the head at the given stream and pull the target's gradient back through it.

    The head's own part is measured, not inferred: the frozen head run with the stream at zero.

    Raises:
        TargetError: the target does not fit, or does not depend on the stream.
    """
    head = subgraph(form.graph, form.graph.outputs if callable(target) else (form.output,), given=(stream,))
    wanted: Callable[[Mapping[str, Any]], Tensor] = partial(explained, form, target=target)
    if last := readout(head, form.output):
        head, wanted = last.graph, last.target(form, target)
    given = {**inputs, stream: value}
    with torch.no_grad():
        live = run(head, form.state, given)
        values = wanted(live)  # what does not fit is told before an operator that has no rule
    if len(head.outputs) == 1:
        frozen, state = freeze(head, form.state, given)
    else:  # what other outputs need than those that the target reads, such as a loss, may have no rule
        read = subgraph(head, outputs_read(head, live, wanted), (stream,))
        frozen, state = freeze(head, form.state, given, [segment.id for segment in read.segments])
    aim = Aim.at(frozen, record(frozen, state, given), wanted, live, form.precision, values)
    gradients = aim.gradients([stream, *aim.outputs])
    if stream not in gradients:
        gradients[stream] = torch.zeros_like(value)
    examples = aim.examples(gradients)
    with torch.no_grad():
        empty = run(frozen, state, {**given, stream: torch.zeros_like(value)})
    parts = [examples.dot(output, gradients[output], empty[output]) for output in aim.outputs]
    constants = sum(parts, start=aim.remainder(examples, gradients))
    return Head(gradients[stream], constants, examples.of(aim.values), examples)

"""What lies between the stream and the target, held at the given input: an affine map, pulled back once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.form import ResidualForm, Target, objective
from unbraid.graph import subgraph
from unbraid.unravel._readout import readout
from unbraid.walk import Cotangents, freeze, record, run, walk


@dataclass(frozen=True, eq=False)
class Head:
    """target = ⟨gradient, stream⟩ + constants per example, at the given input.

    Attributes:
        gradient: of the target with respect to the stream, the head frozen, [*stream].
        constants: what the head adds by itself, and what reaches it by other ways than the stream, [batch].
        target: the scalar, as the model computes it, [batch].
    """

    gradient: Float[Tensor, "*stream"]
    constants: Float[Tensor, " batch"]
    target: Float[Tensor, " batch"]


def pulled_back(form: ResidualForm, inputs: Mapping[str, Any], stream: str, value: Tensor, target: Target) -> Head:
    """Freeze the head at the given stream and pull the target's gradient back through it.

    The head's own part is measured, not inferred: the frozen head run with the stream at zero.
    """
    head, at, wanted = subgraph(form.graph, (form.output,), given=(stream,)), form.output, target
    if last := readout(head, form.output):
        head, at, wanted = last.graph, last.features, last.target(form.state, target)
    given = {**inputs, stream: value}
    with torch.no_grad():
        aim = objective(run(head, form.state, given)[at], wanted)
    frozen, state = freeze(head, form.state, given)
    tape = record(frozen, state, given)
    gradient = walk(frozen, Cotangents(frozen, tape), {at: aim.cotangent}, [stream])[stream]
    with torch.no_grad():
        empty = run(frozen, state, {**given, stream: torch.zeros_like(value)})[at]
    constants = (aim.cotangent * empty).reshape(len(empty), -1).sum(1) + aim.remainder
    return Head(gradient, constants, aim.values)

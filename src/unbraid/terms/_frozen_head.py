"""What lies between the stream and the target, held at the given input: an affine map, pulled back once."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unbraid.form import Linearised, ResidualForm, explained
from unbraid.graph import subgraph
from unbraid.results import Target
from unbraid.terms._last_linear_map import readout
from unbraid.walk import run


def frozen_head(
    form: ResidualForm, inputs: Mapping[str, Any], stream: str, value: Tensor, target: Target
) -> Linearised:
    """Target = ⟨gradient, stream⟩ + constant per example: the head, frozen at a stream and ended in the target.

    Its `constant` is what the head adds by itself, and what reaches it by other ways than the stream: it is measured,
    not inferred, by the frozen head run with the stream at zero.

    Raises:
        TargetError: the target does not fit, or does not depend on the stream.
    """
    head = subgraph(form.graph, form.graph.outputs if callable(target) else (form.output,), given=(stream,))
    function: Callable[[Mapping[str, Any]], Tensor] = partial(explained, form, target=target)
    if last := readout(head, form.output):
        head, function = last.graph, last.target(form, target)
    given = {**inputs, stream: value}
    with torch.no_grad():
        live = run(head, form.state, given)  # so that what does not fit is told before an operator that has no rule
    return Linearised.of(form, head, given, function, frozen=True, live=live, begin=stream)

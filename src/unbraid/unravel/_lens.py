from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.graph import subgraph
from unbraid.unravel._push import Run
from unbraid.walk import freeze, run


@dataclass(frozen=True, eq=False)
class Lens:
    """The head applied to the partial sums of the terms: what the model would say after each block (the logit lens).

    Attributes:
        names: the last term of each partial sum.
        outputs: the head's output for each partial sum; the last is the model's own.
        scale: "recomputed" where the head's norms measure each partial sum, "frozen" where they keep the scale of the
            whole stream, so that outputs change by one term's contribution at a time.
    """

    names: tuple[str, ...]
    outputs: Float[Tensor, "terms *output"]
    scale: Literal["recomputed", "frozen"]


def lens(
    made: Run,
    stream: str,
    names: tuple[str, ...],
    values: Float[Tensor, "terms *stream"],
    scale: Literal["recomputed", "frozen"],
) -> Lens:
    """Run the head on every partial sum."""
    form = made.form
    head = subgraph(form.graph, (form.output,), given=(stream,))
    given = {**made.inputs, stream: made.values[stream]}
    graph, state = (head, form.state) if scale == "recomputed" else freeze(head, form.state, given)
    with torch.no_grad():
        outputs = [run(graph, state, {**given, stream: partial})[form.output] for partial in values.cumsum(0)]
    return Lens(names, torch.stack(outputs), scale)

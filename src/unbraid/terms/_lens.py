"""The head applied to every partial sum of the terms: the logit lens."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid.discover import by_chance
from unbraid.errors import InexactError
from unbraid.freeze import freeze
from unbraid.graph import subgraph
from unbraid.results import Result
from unbraid.results.rows import Row, as_rows
from unbraid.terms._push_terms import FrozenTrunk
from unbraid.walk import run


@dataclass(frozen=True, eq=False, repr=False)
class Lens(Result):
    """The head applied to the partial sums of the terms: what the model would say after each block (the logit lens).

    Attributes:
        names: the last term of each partial sum.
        outputs: the head's output for each partial sum; the last is the model's own.
        scale: "recomputed" where the head's norms measure each partial sum, "frozen" where they keep the scale of the
            whole stream, so that outputs change by one term's contribution at a time.
    """

    names: tuple[str, ...]
    outputs: Float[Tensor, "terms *output"]
    scale: str

    columns = (
        ("up to", "{up to}"),
        ("same prediction", "{agreement:.1%}"),
        ("divergence in nats", "{divergence:.4g}"),
    )
    entries = ("names", "agreement", "divergence", "scale")

    @property
    def caption(self) -> str:
        """What the head's norms measure."""
        return f"the head's scale is {self.scale}"

    @property
    def agreement(self) -> Float[Tensor, " terms"]:
        """The share of predictions, the classes of the largest output, that are the model's own."""
        predicted = self.outputs.argmax(-1)
        return (predicted == predicted[-1]).double().flatten(1).mean(1)

    @property
    def divergence(self) -> Float[Tensor, " terms"]:
        """KL(model ‖ partial sum) of the classes' distributions in nats, averaged over examples and positions."""
        logs = self.outputs.double().log_softmax(-1)
        return (logs[-1].exp() * (logs[-1] - logs)).sum(-1).flatten(1).mean(1)

    def rows(self) -> list[Row]:
        """One row per partial sum, by its last term."""
        return as_rows({"up to": self.names, "agreement": self.agreement, "divergence": self.divergence})

    def scalars(self) -> dict[str, float]:
        """After how many terms half of the predictions are the model's, and how far the first term is from it."""
        half = next(k for k, share in enumerate(self.agreement.tolist()) if share >= 0.5)
        return {"terms to half agreement": float(half), "divergence of the first": float(self.divergence[0])}

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """Agreement and divergence by term."""
        from unbraid.draw import agreement

        return agreement(self.agreement.tolist(), self.divergence.tolist(), ax=ax)


def lens(
    trunk: FrozenTrunk,
    stream: str,
    names: tuple[str, ...],
    values: Inexact[Tensor, "terms *stream"],
    scale: str,
) -> Lens:
    """Run the head on every partial sum.

    Raises:
        ValueError: the scale is neither "recomputed" nor "frozen".
        InexactError: the head draws random numbers, so that each partial sum would meet another head.
    """
    if scale not in ("recomputed", "frozen"):
        raise ValueError(f'lens: scale is "recomputed" or "frozen"; {scale!r} came.')
    form = trunk.form
    head = subgraph(form.graph, (form.output,), given=(stream,))
    if scale == "recomputed" and (chance := by_chance(head)):
        raise InexactError(f"lens: the head must be one function of all partial sums.{chance}", where=form.output)
    given = {**trunk.given, stream: trunk.values[stream]}
    graph, state = (head, form.state) if scale == "recomputed" else freeze(head, form.state, given)
    with torch.no_grad():
        outputs = [run(graph, state, {**given, stream: partial})[form.output] for partial in values.cumsum(0)]
    return Lens(names, torch.stack(outputs), scale)

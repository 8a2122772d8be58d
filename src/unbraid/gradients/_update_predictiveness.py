"""How far a gradient step for one example changes the gradients of others.

Where gradients shatter, a small step makes another gradient, and the last one says little about the next.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid._progress import how_many, progress
from unbraid.form import ResidualForm
from unbraid.gradients._example_gradients import EPS, Loss, cosines_of, gradients_of, norms_of, rows_of
from unbraid.results import Result, classification_loss
from unbraid.results.rows import Row, as_rows
from unbraid.sweep import Batches, each_batch


@dataclass(frozen=True, eq=False, repr=False)
class Predictiveness(Result):
    """How far a step for one example changes the gradient of another.

    Attributes:
        steps: the step sizes η.
        change: ‖g_j(θ − η g_i) − g_j(θ)‖ / ‖g_j(θ)‖ averaged over pairs i ≠ j, [steps].
        cosine: the cosine between g_j after and before, averaged over pairs, [steps].
        pairs: how many pairs there were.
    """

    steps: tuple[float, ...]
    change: Float[Tensor, " steps"]
    cosine: Float[Tensor, " steps"]
    pairs: int

    columns = (("step", "{step:g}"), ("relative change", "{change:.3g}"), ("cosine", "{cosine:+.3f}"))

    @property
    def caption(self) -> str:
        """How many pairs of examples there were."""
        return f"{self.pairs:,} pairs of examples"

    def rows(self) -> list[Row]:
        """One row per step size."""
        return as_rows({"step": self.steps, "change": self.change, "cosine": self.cosine})

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """Relative change by step size."""
        from unbraid.draw.gradients import predictiveness

        return predictiveness(list(self.steps), self.change.tolist(), self.cosine.tolist(), ax=ax)


@outside_modes
def update_predictiveness(
    form: ResidualForm,
    batches: Batches,
    steps: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1),
    *,
    loss: Loss = classification_loss,
    others: int = 8,
) -> Predictiveness:
    """How far a gradient step for one example changes the gradients of others, against the step's size.

    If gradients shatter, a small step makes the updated gradient a different one, and the last gradient says little
    about the next (Prince 2023, section 11.1).

    Args:
        form: a traced model in eval mode, or the chain of a plain one.
        batches: any iterable of (inputs, labels); each example of a batch takes a step, one after the other.
        steps: the step sizes η; 0 changes nothing.
        loss: a function (what the model returns, labels) -> [batch].
        others: to how many of the other examples of its batch each is compared.

    Raises:
        DataError: there is no batch, or one is no pair of inputs and labels.
        ValueError: no batch has two examples.
    """
    learned = {name: form.state[name].detach() for name in sorted(form.learned) if name in form.state}
    change, cosine = torch.zeros(2, len(steps), dtype=torch.float64, device="cpu")
    pairs = 0
    with progress("steps", how_many(batches)) as moved_on:
        for batch in each_batch(form, batches):
            gradients = gradients_of(form, batch, learned, loss)
            for i in range(batch.size):
                chosen = [(i + 1 + j) % batch.size for j in range(min(others, batch.size - 1))]
                if not chosen:
                    continue
                rest = rows_of(batch, chosen)
                before = {name: rows[chosen] for name, rows in gradients.items()}
                for place, step in enumerate(steps):
                    moved = {name: learned[name] - step * gradients[name][i] for name in learned}
                    after = gradients_of(form, rest, moved, loss)
                    far = norms_of({name: after[name] - before[name] for name in learned})
                    change[place] += float((far / norms_of(before).clamp_min(EPS)).sum())
                    cosine[place] += float(cosines_of(after, before).sum())
                pairs += len(chosen)
            moved_on()
    if not pairs:
        raise ValueError("update_predictiveness: compares examples of one batch, and no batch has two.")
    return Predictiveness(tuple(steps), change / pairs, cosine / pairs, pairs)

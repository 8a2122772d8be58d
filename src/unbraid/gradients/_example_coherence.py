"""How alike the gradients of different examples are, block by block.

Sums of unit vectors and of gradients suffice for the mean over all pairs, so that memory does not grow with the number
of examples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid._progress import how_many, progress
from unbraid.form import ResidualForm
from unbraid.gradients._example_gradients import EPS, Loss, gradients_of, norms_of, parameters_by_block, rows_of
from unbraid.results import Result, classification_loss
from unbraid.results.rows import Row, as_rows
from unbraid.sweep import Batches, each_batch


@dataclass(frozen=True, eq=False, repr=False)
class Coherence(Result):
    """How alike the gradients of different examples are, block by block.

    Attributes:
        names: of the blocks that learn anything.
        cosine: the mean cosine between the gradients of two different examples, [blocks].
        ratio: ‖mean gradient‖ / mean ‖gradient‖, [blocks]: 1 where all agree, about 1/√examples where none does.
        norms: the mean norm of an example's gradient, [blocks].
        examples: how many there were.
    """

    names: tuple[str, ...]
    cosine: Float[Tensor, " blocks"]
    ratio: Float[Tensor, " blocks"]
    norms: Float[Tensor, " blocks"]
    examples: int

    columns = (
        ("block", "{block}"),
        ("mean cosine", "{cosine:+.3f}"),
        ("‖mean‖ / mean ‖·‖", "{ratio:.3f}"),
        ("mean norm", "{norm:.3g}"),
    )

    @property
    def caption(self) -> str:
        """How many examples there were."""
        return f"{self.examples:,} examples"

    def rows(self) -> list[Row]:
        """One row per block."""
        return as_rows({"block": self.names, "cosine": self.cosine, "ratio": self.ratio, "norm": self.norms})

    def scalars(self) -> dict[str, float]:
        """The mean cosine at the first block and at the last."""
        return {"cosine, first block": float(self.cosine[0]), "cosine, last block": float(self.cosine[-1])}

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """Mean cosine and ratio by block."""
        from unbraid.draw.gradients import coherence

        return coherence(self.cosine.tolist(), self.ratio.tolist(), ax=ax)


@outside_modes
def example_coherence(
    form: ResidualForm, batches: Batches, *, loss: Loss = classification_loss, chunk: int = 16
) -> Coherence:
    """Mean cosine between the gradients of different examples, and how much of their norm survives averaging.

    With unit vectors u_i = g_i/‖g_i‖ of n examples the mean cosine over pairs is (‖Σ u_i‖² − n) / (n² − n), so that two
    sums of the size of the parameters suffice, whatever the number of examples.

    Args:
        form: a traced model in eval mode, or the chain of a plain one.
        batches: any iterable of (inputs, labels).
        loss: a function (what the model returns, labels) -> [batch].
        chunk: how many examples' gradients are held at once.

    Raises:
        DataError: there is no batch, or one is no pair of inputs and labels.
        ValueError: there is one example alone, or the form has no block that learns.
    """
    groups = parameters_by_block(form)
    if not groups:
        raise ValueError("example_coherence: no block of this form has parameters.")
    names = set[str]().union(*groups.values())
    units = {block: dict.fromkeys(group, torch.zeros((), device="cpu")) for block, group in groups.items()}
    sums = {block: dict.fromkeys(group, torch.zeros((), device="cpu")) for block, group in groups.items()}
    lengths = dict.fromkeys(groups, 0.0)
    examples = 0
    with progress("gradients", how_many(batches)) as step:
        for gradients, size, last in _each_chunk(form, batches, names, loss, chunk):
            examples += size
            for k, group in groups.items():
                norm = norms_of({name: gradients[name] for name in group})
                lengths[k] += float(norm.sum())
                inverse = torch.where(norm > 0, 1 / norm.clamp_min(EPS), torch.zeros_like(norm))
                for name in group:
                    rows = gradients[name]
                    rows = (torch.view_as_real(rows) if rows.is_complex() else rows).double()
                    units[k][name] = units[k][name] + torch.tensordot(inverse, rows, 1)
                    sums[k][name] = sums[k][name] + rows.sum(0)
            step(int(last))
    if examples < 2:
        raise ValueError(f"example_coherence: compares examples, and {examples} came.")

    def numbers(of: Callable[[int], float]) -> Tensor:
        return torch.tensor([of(k) for k in groups], dtype=torch.float64, device="cpu")

    squares = numbers(lambda k: sum(float(t.square().sum()) for t in units[k].values()))
    whole = numbers(lambda k: sum(float(t.square().sum()) for t in sums[k].values()) ** 0.5)
    each = numbers(lambda k: lengths[k])
    return Coherence(
        tuple(form.blocks[k].name for k in groups),
        (squares - examples) / (examples**2 - examples),
        whole / each.clamp_min(EPS),
        each / examples,
        examples,
    )


def _each_chunk(
    form: ResidualForm, batches: Batches, names: set[str], loss: Loss, chunk: int
) -> Iterator[tuple[dict[str, Tensor], int, bool]]:
    parameters = {name: form.state[name].detach() for name in sorted(names)}
    for batch in each_batch(form, batches):
        for start in range(0, batch.size, chunk):
            part = rows_of(batch, list(range(start, min(start + chunk, batch.size))))
            yield gradients_of(form, part, parameters, loss), part.size, start + chunk >= batch.size

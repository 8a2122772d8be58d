from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from rich import box
from rich.table import Table
from torch import Tensor
from torch.func import grad, vmap
from torch.utils import _pytree as pytree

from unbraid.form import Batch, Batches, ResidualForm, Result, classification_loss, each_batch
from unbraid.walk import run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Loss = Callable[[Any, Any], Tensor]
_EPS = 1e-30


@dataclass(frozen=True, eq=False)
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

    def table(self) -> Table:
        """One row a block."""
        table = Table(box=box.SIMPLE_HEAD, caption=f"{self.examples:,} examples")
        table.caption_justify = "left"
        for column in ("block", "mean cosine", "‖mean‖ / mean ‖·‖", "mean norm"):
            table.add_column(column, justify="left" if column == "block" else "right")
        for name, cosine, ratio, norm in zip(self.names, self.cosine, self.ratio, self.norms, strict=True):
            table.add_row(name, f"{cosine:+.3f}", f"{ratio:.3f}", f"{norm:.3g}")
        return table

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "names": list(self.names),
            "cosine": self.cosine.tolist(),
            "ratio": self.ratio.tolist(),
            "norms": self.norms.tolist(),
            "examples": self.examples,
        }

    def plot(self) -> "Figure":
        """Mean cosine and ratio by block."""
        from unbraid.draw import coherence

        return coherence(self.cosine.tolist(), self.ratio.tolist())


def example_coherence(
    form: ResidualForm, batches: Batches, *, loss: Loss = classification_loss, chunk: int = 16
) -> Coherence:
    """Mean cosine between the gradients of different examples, and how much of their norm survives averaging.

    With unit vectors u_i = g_i/‖g_i‖ of n examples the mean cosine over pairs is (‖Σ u_i‖² − n) / (n² − n), so that two
    sums of the size of the parameters suffice, whatever the number of examples.

    Args:
        form: a traced model in eval mode, or the chain of a plain one.
        batches: any iterable of (inputs, labels).
        loss: a function (output, labels) -> [batch].
        chunk: how many examples' gradients are held at once.

    Raises:
        DataError: there is no batch, or one is no pair of inputs and labels.
        ValueError: there is one example alone, or the form has no block that learns.
    """
    groups = parameters_by_block(form)
    if not groups:
        raise ValueError("example_coherence: no block of this form has parameters.")
    names = {name for group in groups.values() for name in group}
    units = {k: {name: torch.zeros(()) for name in group} for k, group in groups.items()}
    sums = {k: {name: torch.zeros(()) for name in group} for k, group in groups.items()}
    lengths = dict.fromkeys(groups, 0.0)
    examples = 0
    for gradients, size in _each_chunk(form, batches, names, loss, chunk):
        examples += size
        for k, group in groups.items():
            norm = _norms({name: gradients[name] for name in group})
            lengths[k] += float(norm.sum())
            inverse = torch.where(norm > 0, 1 / norm.clamp_min(_EPS), torch.zeros_like(norm))
            for name in group:
                rows = gradients[name].double()
                units[k][name] = units[k][name] + torch.tensordot(inverse, rows, 1)
                sums[k][name] = sums[k][name] + rows.sum(0)
    if examples < 2:
        raise ValueError(f"example_coherence: compares examples, and {examples} came.")
    squares = torch.tensor([sum(float(t.square().sum()) for t in units[k].values()) for k in groups])
    whole = torch.tensor([sum(float(t.square().sum()) for t in sums[k].values()) ** 0.5 for k in groups])
    each = torch.tensor([lengths[k] for k in groups])
    return Coherence(
        tuple(form.blocks[k].name for k in groups),
        (squares - examples) / (examples**2 - examples),
        whole / each.clamp_min(_EPS),
        each / examples,
        examples,
    )


@dataclass(frozen=True, eq=False)
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

    def table(self) -> Table:
        """One row a step size."""
        table = Table(box=box.SIMPLE_HEAD, caption=f"{self.pairs:,} pairs of examples")
        table.caption_justify = "left"
        for column in ("step", "relative change", "cosine"):
            table.add_column(column, justify="right")
        for step, change, cosine in zip(self.steps, self.change, self.cosine, strict=True):
            table.add_row(f"{step:g}", f"{change:.3g}", f"{cosine:+.3f}")
        return table

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "steps": list(self.steps),
            "change": self.change.tolist(),
            "cosine": self.cosine.tolist(),
            "pairs": self.pairs,
        }

    def plot(self) -> "Figure":
        """Relative change by step size."""
        from unbraid.draw import predictiveness

        return predictiveness(list(self.steps), self.change.tolist(), self.cosine.tolist())


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
        loss: a function (output, labels) -> [batch].
        others: to how many of the other examples of its batch each is compared.

    Raises:
        DataError: there is no batch, or one is no pair of inputs and labels.
        ValueError: no batch has two examples.
    """
    learned = {name: form.state[name].detach() for name in sorted(form.learned) if name in form.state}
    change, cosine = torch.zeros(2, len(steps), dtype=torch.float64)
    pairs = 0
    for batch in each_batch(form, batches):
        gradients = _gradients(form, batch, learned, loss)
        for i in range(batch.size):
            chosen = [(i + 1 + j) % batch.size for j in range(min(others, batch.size - 1))]
            if not chosen:
                continue
            rest = _rows(batch, chosen)
            before = {name: rows[chosen] for name, rows in gradients.items()}
            for place, step in enumerate(steps):
                moved = {name: learned[name] - step * gradients[name][i] for name in learned}
                after = _gradients(form, rest, moved, loss)
                far = _norms({name: after[name] - before[name] for name in learned}) / _norms(before).clamp_min(_EPS)
                change[place] += float(far.sum())
                cosine[place] += float(_cosines(after, before).sum())
            pairs += len(chosen)
    if not pairs:
        raise ValueError("update_predictiveness: compares examples of one batch, and no batch has two.")
    return Predictiveness(tuple(steps), change / pairs, cosine / pairs, pairs)


def parameters_by_block(form: ResidualForm) -> dict[int, tuple[str, ...]]:
    """The learned parameters of each top-level block's branches and skip, nested blocks included."""
    top = {block.index for block in form.blocks}
    parents = {block.index: block.parent[0] for block in form.all_blocks if block.parent is not None}
    found: dict[int, dict[str, None]] = {}
    for segment in form.segments:
        block = segment.block
        while block is not None and block not in top:
            block = parents[block]
        if block is not None:
            found.setdefault(block, {}).update(dict.fromkeys(n for n in segment.params if n in form.learned))
    return {block: tuple(names) for block, names in sorted(found.items()) if names}


def _each_chunk(
    form: ResidualForm, batches: Batches, names: set[str], loss: Loss, chunk: int
) -> Iterator[tuple[dict[str, Tensor], int]]:
    parameters = {name: form.state[name].detach() for name in sorted(names)}
    for batch in each_batch(form, batches):
        for start in range(0, batch.size, chunk):
            part = _rows(batch, list(range(start, min(start + chunk, batch.size))))
            yield _gradients(form, part, parameters, loss), part.size


def _gradients(form: ResidualForm, batch: Batch, parameters: Mapping[str, Tensor], loss: Loss) -> dict[str, Tensor]:
    """The gradient of each example's loss by the parameters, [examples, *parameter] each."""
    inputs = form.inputs(batch.args, batch.kwargs)
    moving = {name for name, value in inputs.items() if isinstance(value, Tensor) and value.ndim}
    state = {name: tensor.detach() for name, tensor in form.state.items()}

    def of_one(values: dict[str, Tensor], example: dict[str, Tensor], label: Any) -> Tensor:
        fed = {**inputs, **{name: value[None] for name, value in example.items()}}
        output = run(form.graph, {**state, **values}, fed)[form.output]
        return loss(output, pytree.tree_map(lambda leaf: leaf[None], label)).sum()

    examples = {name: inputs[name] for name in moving}
    found: dict[str, Tensor] = vmap(grad(of_one), in_dims=(None, 0, 0))(dict(parameters), examples, batch.labels)
    return found


def _rows(batch: Batch, rows: list[int]) -> Batch:
    args, kwargs, labels = pytree.tree_map(
        lambda leaf: leaf[rows] if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == batch.size else leaf,
        (batch.args, dict(batch.kwargs), batch.labels),
    )
    return Batch(args, kwargs, labels, len(rows))


def _norms(gradients: Mapping[str, Tensor]) -> Float[Tensor, " examples"]:
    return sum((g.double().flatten(1).square().sum(1) for g in gradients.values()), start=torch.zeros(())).sqrt()


def _cosines(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Float[Tensor, " examples"]:
    products = ((a[name].double() * b[name].double()).flatten(1).sum(1) for name in a)
    return sum(products, start=torch.zeros(())) / (_norms(a) * _norms(b)).clamp_min(_EPS)

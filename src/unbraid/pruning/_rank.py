"""Order the blocks of a model by what they are worth, by three measures.

Influence compares the sum with and without the branches, S h against S h + f. That is ShortGPT's measure where the skip
is the identity, and is defined for projections too.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from unbraid._modes import outside_modes
from unbraid._progress import how_many, progress
from unbraid.discover import Block, BranchLike, removal_name, removal_of
from unbraid.errors import TargetError
from unbraid.form import ResidualForm
from unbraid.graph import Removal, differentiable
from unbraid.graph.state import detached
from unbraid.pruning._influence import influence
from unbraid.pruning._ranking import By, Ranking
from unbraid.pruning._stream_readings import Over, branches_of, gated
from unbraid.sweep import Batches, Metric, each_batch, lesioned, sweep
from unbraid.walk import run


@outside_modes
def rank(
    form: ResidualForm,
    batches: Batches,
    *,
    by: By = "influence",
    metric: Metric | None = None,
    groups: Iterable[Iterable[BranchLike]] | None = None,
    over: Over = "position",
) -> Ranking:
    """Order the blocks of a model by what they are worth.

    - "influence": 1 − E cos(before, after), how much a block turns the stream: ShortGPT's block influence (Men et al.
      2024, Equation 1). Before is the block's sum without its branches, S_k h, which is its input where the skip is the
      identity, and [S_k h, 0] in a concatenation; after is the whole sum. It needs no labels.
    - "lesion": the metric without the block minus that of the whole model (Veit et al. 2016), one run per block.
    - "gradient": |E Σ ⟨∂metric/∂f_k, f_k⟩|, the first-order estimate of that difference (Molchanov et al. 2017), from
      one backward pass with the metric as the loss.

    A larger lesion score means more important where the metric is a loss; give −accuracy, not accuracy.

    Args:
        form: a traced model.
        batches: pairs of inputs and labels.
        by: the measure.
        metric: (output, labels) -> a scalar tensor, smaller is better; needed for "lesion" and "gradient".
        groups: what is ranked together: the blocks of each layer, say, `layers(model, form)`. By default each top-level
            block by itself. Members of a group are blocks, by index or name, or (block, branch) pairs; "influence"
            takes groups of consecutive blocks of one trunk, whose before is the first's and whose after is the last's.
        over: between which vectors the cosine is taken. "position": of a stream [batch, positions, features] one a
            position, as in the paper; of any other stream, and with "example", all numbers of an example are one
            vector: an image's channels may be its second size or its last, and a cosine over all is the same for both.

    Returns:
        The scores, running means over all batches in float64.

    Raises:
        ValueError: the metric is missing, is no single number, or cannot be differentiated where it must be.
        IndexError: a group names a block or a branch that is not there.
        DataError: there is no batch, or one is no pair of inputs and labels.
    """
    if by not in get_args(By):
        raise ValueError(f'rank: by is "influence", "lesion" or "gradient"; {by!r} came.')
    if by != "influence" and metric is None:
        raise ValueError(f'rank: by="{by}" needs metric=, a function (output, labels) -> scalar, a loss, say.')
    chosen = _groups(form, groups)
    whole = float("nan")
    if by == "influence":
        scores, examples = influence(form, batches, chosen, over)
    elif by == "lesion":
        scores, whole, examples = _lesion(form, batches, chosen, metric)
    else:
        scores, whole, examples = _gradient(form, batches, chosen, metric)
    blocks = {block.index: block for block in form.all_blocks}
    return Ranking(
        by=by,
        groups=chosen,
        names=tuple(_name(form, group) for group in chosen),
        scores=torch.tensor(scores, dtype=torch.float64, device="cpu"),
        parameters=tuple(_parameters(blocks, group) for group in chosen),
        whole=whole,
        examples=examples,
    )


def _parameters(blocks: Mapping[int, Block], group: Iterable[Removal]) -> int:
    """How many numbers the blocks of a group learn, each block once."""
    indices = {removal if isinstance(removal, int) else removal[0] for removal in group}
    return sum(blocks[index].parameters for index in indices)


def _groups(form: ResidualForm, groups: Iterable[Iterable[BranchLike]] | None) -> tuple[tuple[Removal, ...], ...]:
    if groups is None:
        return tuple((block.index,) for block in form.blocks if branches_of(form, (block.index,)))
    chosen: list[tuple[Removal, ...]] = []
    for given in groups:
        group = tuple(removal_of(form.blocks, part, "rank") for part in given)
        if not branches_of(form, group):
            raise ValueError(f"rank: a group is at least one branch that the form has; {list(group)} came.")
        chosen.append(group)
    return tuple(chosen)


def _name(form: ResidualForm, group: Sequence[Removal]) -> str:
    names = [removal_name(form.blocks, part) for part in group]
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"


def _lesion(
    form: ResidualForm, batches: Batches, groups: Sequence[Sequence[Removal]], metric: Metric | None
) -> tuple[list[float], float, int]:
    assert metric is not None
    swept = sweep(form, lesioned(form, [(), *groups]), batches, metric, text="lesions")
    whole, *means = swept.means
    return [mean - whole for mean in means], whole, swept.examples


def _gradient(
    form: ResidualForm, batches: Batches, groups: Sequence[Sequence[Removal]], metric: Metric | None
) -> tuple[list[float], float, int]:
    """⟨∂metric/∂f, f⟩ is the derivative of the metric by a scale of the branch at 1, so minus it estimates the loss."""
    assert metric is not None
    graph, gates = gated(form)
    state = detached(form.state)
    sums, whole, examples = dict.fromkeys(gates, 0.0), 0.0, 0
    with progress("gradients", how_many(batches)) as step:
        for batch in each_batch(form, batches):
            inputs = {name: _leaf(value) for name, value in form.inputs(batch.args, batch.kwargs).items()}
            with torch.enable_grad():
                values = run(graph, state, inputs, keep=gates.values())
                loss = metric(form.signature.result(values), batch.labels)
            _check(loss)
            wanted = [name for name in gates.values() if values[name].requires_grad]
            gradients = torch.autograd.grad(loss, [values[name] for name in wanted], allow_unused=True)
            slopes = {name: slope for name, slope in zip(wanted, gradients, strict=True) if slope is not None}
            for pair, name in gates.items():
                if name in slopes:
                    along = (slopes[name].conj() * values[name].detach()).real  # dL = Re(conj(g)·dz)
                    sums[pair] += batch.size * float(along.double().sum())
            whole += batch.size * float(loss.detach())
            examples += batch.size
            step()
    means = {pair: total / examples for pair, total in sums.items()}
    scores = [abs(math.fsum(map(means.__getitem__, branches_of(form, group)))) for group in groups]
    return scores, whole / examples, examples


def _leaf(value: Any) -> Any:
    carries = isinstance(value, Tensor) and differentiable(value.dtype)
    return value.detach().requires_grad_() if carries else value


def _check(loss: Any) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        came = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"metric: it must give one number for a batch, a scalar tensor; it gave {came}.")
    if not loss.requires_grad:
        raise TargetError(
            'rank: by="gradient" needs a metric that can be differentiated, such as the cross-entropy; '
            "a count of right answers has no gradient, nor has what the model computes under torch.no_grad."
        )

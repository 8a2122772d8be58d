"""One pass over the examples: to learn from them, or to count the wrong answers."""

from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unbraid.data import Batches
from unbraid.ranks import total, world
from unbraid.train._rank_shares import part, weight

__all__ = ["Pass", "evaluate", "finite", "train_pass"]

# On a GPU each look at a number waits for all work queued before it, so losses are looked at in groups.
STEPS_BETWEEN_CHECKS = {"cpu": 1}
STEPS_BETWEEN_CHECKS_ELSEWHERE = 16


@dataclass(frozen=True)
class Pass:
    """What one pass of training came to.

    Attributes:
        loss: mean cross-entropy over the examples, in nats, as they were met.
        error: share of examples answered wrongly, in %, as they were met.
        diverged: the step of this pass, counted from 0, whose loss or weights were first not finite, if any.
    """

    loss: float
    error: float
    diverged: int | None


def train_pass(network: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> Pass:
    """Step once for each batch; stop at the first loss that is not finite.

    On the CPU each loss is looked at before its step is taken; elsewhere every 16 steps, so up to 15 steps
    more may have been taken, but the step reported is the first bad one all the same.

    With several ranks each takes its part of every batch; losses and counts are those of the whole batch.
    """
    network.train()
    device = batches.examples.inputs.device
    every = STEPS_BETWEEN_CHECKS.get(device.type, STEPS_BETWEEN_CHECKS_ELSEWHERE)
    losses: list[Tensor] = []
    summed, wrong = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
    for step, (inputs, labels) in enumerate(batches):
        mine = part(labels)
        outputs = network(part(inputs))
        loss = weight(len(mine), len(labels)) * cross_entropy(outputs, mine)
        losses.append(loss.detach())
        if (step + 1) % every == 0 or step + 1 == len(batches):
            bad = ~total(torch.stack(losses).double()).isfinite()
            if bad.any():
                first = step + 1 - len(losses) + int(bad.int().argmax())
                return Pass(float("nan"), float("nan"), diverged=first)
            losses.clear()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        summed += loss.detach() * len(labels)
        wrong += count_wrong(outputs.detach(), mine)
    # The last step may have ruined the weights after its loss was looked at.
    diverged = None if finite(network) else len(batches) - 1
    examples = len(batches.examples)
    mean = float(total(summed.double())) / world().size / examples
    return Pass(mean, 100 * int(total(wrong)) / examples, diverged)


@torch.no_grad()
def evaluate(network: nn.Module, batches: Batches) -> float:
    """The share of examples answered wrongly, in %, in eval mode. An output that is not finite is wrong.

    With several ranks each takes every so many of the batches.
    """
    network.eval()
    here = world()
    wrong = torch.zeros((), dtype=torch.int64, device=batches.examples.inputs.device)
    for inputs, labels in islice(batches, here.rank, None, here.size):
        wrong += count_wrong(network(inputs), labels)
    return 100 * int(total(wrong)) / len(batches.examples)


def count_wrong(outputs: Float[Tensor, "batch classes"], labels: Int64[Tensor, " batch"]) -> Int64[Tensor, ""]:
    """How many rows have their largest value elsewhere than at the label, or one that is not finite."""
    # argmax of a row with a NaN is the NaN's place, which may be the label.
    return ((outputs.argmax(1) != labels) | ~outputs.isfinite().all(1)).sum()


def finite(network: nn.Module) -> bool:
    """Whether every parameter and buffer is."""
    tensors = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all()) if tensors else True

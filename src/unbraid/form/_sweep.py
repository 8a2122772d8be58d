from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from unbraid._progress import how_many, progress
from unbraid.form._batches import Batch, Batches, Metric, each_batch
from unbraid.form._edit import Part as Branch
from unbraid.form._edit import Spared
from unbraid.form._form import ResidualForm
from unbraid.form._part import Part
from unbraid.graph import Graph, Step, Stream

# Values for streams that variants read and the form has not, by their names: means of branches, say.
Feed: TypeAlias = Callable[[Batch], Mapping[str, Tensor]]
_CHUNK = 4096  # variants that are laid over one another at once


@dataclass(frozen=True)
class Swept:
    """A metric of many variants of one form.

    Attributes:
        means: the metric of each variant, averaged over all examples, in float64.
        examples: how many there were.
        stacked: whether variants ran together as one larger batch; not where examples influence one another, or the
            batch size is fixed.
    """

    means: tuple[float, ...]
    examples: int
    stacked: bool


def sweep(
    form: ResidualForm,
    variants: Sequence[Sequence[Step]],
    batches: Batches,
    metric: Metric,
    *,
    max_batch: int | None = None,
    stack: bool = True,
    given: Iterable[Stream] = (),
    feed: Feed | None = None,
    text: str = "variants",
) -> Swept:
    """The metric of many variants of a form, what they have in common being computed once.

    Variants that agree on what comes before a step share its value, and those that differ run together as one larger
    batch. On the first batch two variants are compared with plain runs of their own; if they differ by more than
    rounding, which they do where examples of one batch influence one another, every variant runs by itself.

    Args:
        form: a traced model.
        variants: the steps of each.
        batches: pairs of inputs and labels.
        metric: (output, labels) -> a scalar tensor; averaged over batches by their size.
        max_batch: how many examples run at once at most, if more than one batch holds; None lets the memory decide.
        stack: whether variants may run together.
        given: streams that the variants read and the form has not.
        feed: the values of `given` for a batch.
        text: what a progress bar calls the variants.

    Raises:
        DataError: there is no batch, or one is no pair of inputs and labels.
        ValueError: the metric is no single number.
    """
    added = {stream.id: stream for stream in given}
    graph = form.graph
    wide = Graph({**graph.streams, **added}, graph.steps, (*graph.inputs, *added), graph.sources, graph.outputs)
    starts = range(0, len(variants), _CHUNK)
    parts = [Part(form, wide, variants[start : start + _CHUNK], max_batch, stack) for start in starts]
    sums, examples = [0.0] * len(variants), 0
    known = how_many(batches)
    with progress(text, None if known is None else known * len(variants)) as step:
        for batch in each_batch(form, batches):
            inputs = {**form.inputs(batch.args, batch.kwargs), **(feed(batch) if feed else {})}
            for start, part in zip(starts, parts, strict=True):
                found: dict[int, float] = {}
                for number, values in part.outputs(inputs, batch.size):
                    if number not in found:
                        step()
                    found[number] = _number(metric, form.signature.result(values), batch.labels)
                for number, value in found.items():
                    sums[start + number] += batch.size * value
            examples += batch.size
    return Swept(tuple(total / examples for total in sums), examples, _stacked(parts))


def lesioned(
    form: ResidualForm, sets: Iterable[Iterable[Branch]], instead: Mapping[tuple[int, int], str] | None = None
) -> list[tuple[Step, ...]]:
    """The steps of a form without each of some sets of branches, as variants for a `sweep`.

    Args:
        form: a traced model.
        sets: of blocks, or of (block, branch) pairs, branches from 0; see `ResidualForm.without`.
        instead: the stream that takes the place of each (block, branch); where there is none, it is left out.

    Raises:
        IndexError: there is no such block or branch.
        ShapeError: a plain layer changes the size, so that no identity can take its place.
    """
    spared = Spared(form.graph, {block.index: len(block.branches) for block in form.all_blocks}, instead)
    return [spared.steps(which) for which in sets]


def _number(metric: Metric, output: Any, labels: Any) -> float:
    with torch.no_grad():
        value = torch.as_tensor(metric(output, labels))
    if value.numel() != 1:
        raise ValueError(f"metric: it must give one number for a batch, a scalar tensor; it gave {list(value.shape)}.")
    return float(value)


def _stacked(parts: Sequence[Part]) -> bool:
    """Whether all that is alike ran together; the last part may hold a single variant."""
    return any(part.stacked for part in parts) and all(part.stacked or not part.alike for part in parts)

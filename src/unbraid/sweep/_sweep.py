"""A metric of many variants of a form over a data set: lesions, orders, subnetworks.

Variants are laid over one another (`walk._merge`), some thousand at once, each such part is run by `_part`, and the
rows of all batches are added up in order, on however many ranks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from unbraid._progress import how_many, progress
from unbraid.form import ResidualForm
from unbraid.graph import BranchIndex, Graph, Removal, Step, Stream, reads
from unbraid.graph.edits import Spared
from unbraid.graph.state import device_of
from unbraid.ranks import Row, Share, world
from unbraid.sweep._batches import NOWHERE, Batch, Batches, Metric, Resume, each_share
from unbraid.sweep._kept_memory import memory_kept
from unbraid.sweep._variant_group import VariantGroup
from unbraid.walk import weights_channels_last

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
    resume: Resume = NOWHERE,
    text: str = "variants",
) -> Swept:
    """The metric of many variants of a form, what they have in common being computed once.

    Variants that agree on what comes before a step share its value, and those that differ run together as one larger
    batch. When steps are first run so, a variant whose outputs depend on them, mostly the whole model, is compared with
    a plain run of its own; if the two differ by more than rounding, which they do where examples of one batch influence
    one another, every variant runs by itself.

    Args:
        form: a traced model.
        variants: the steps of each.
        batches: pairs of inputs and labels.
        metric: (output, labels) -> a scalar tensor; averaged over batches by their size.
        max_batch: how many examples run at once at most, if more than one batch holds; None lets the memory decide.
        stack: whether variants may run together.
        given: streams that the variants read and the form has not.
        feed: the values of `given` for a batch.
        resume: where finished batches are kept.
        text: what a progress bar calls the variants.

    Raises:
        DataError: there is no batch, or one is no pair of inputs and labels.
        ValueError: the metric is no single number.
    """
    added = {stream.id: stream for stream in given}
    graph = form.graph
    wide = Graph({**graph.streams, **added}, graph.steps, (*graph.inputs, *added), graph.sources, graph.outputs)
    shares = _Shares(form, wide, variants, max_batch, stack)
    one = world().size == 1

    @torch.no_grad()
    def work(batch: Batch, share: Share) -> Row:
        inputs = {**form.inputs(batch.args, batch.kwargs), **(feed(batch) if feed else {})}
        sums = [0.0] * len(variants)
        for numbers, part in shares.parts(share):
            seen: set[int] = set()
            for place, values in part.outputs(inputs, batch.size):
                value = _number(metric, form.signature.result(values), batch.labels)
                sums[numbers[place]] = batch.size * value
                if one and place not in seen:
                    step()
                seen.add(place)
        return {
            "sums": torch.tensor(sums, dtype=torch.float64, device="cpu"),
            "examples": torch.tensor(batch.size if share.index == 0 else 0, device="cpu"),
            **_stacked([part for _, part in shares.parts(share)]),
        }

    total: dict[str, Tensor] = {}
    known = how_many(batches)
    bar = progress(text, None if known is None else known * len(variants))
    with memory_kept(when=device_of(form.state).type == "cpu"), bar as step:
        for row in each_share(form, batches, work, lambda: _said(variants), resume):
            total = {name: total[name] + value if total else value for name, value in row.items()}
            if not one:
                step(len(variants))
    examples = int(total["examples"])
    stacked = bool(total["stacked"] > 0) and not total["refused"]
    return Swept(tuple((total["sums"] / examples).tolist()), examples, stacked)


def together(
    form: ResidualForm, graph: Graph, variants: Sequence[Sequence[Step]], inputs: Mapping[str, Any], size: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The outputs of variants at one input, what they have in common being computed once.

    Args:
        form: the form whose state they run with.
        graph: its streams, inputs and outputs are the variants'.
        variants: the steps of each.
        inputs: a value for each of the graph's input streams.
        size: how many examples there are.

    Yields:
        The number of a variant and its outputs by stream; if one comes twice, the later counts.
    """
    laid = weights_channels_last(graph, form.state)
    states = (form.state,) if laid is form.state else (laid, form.state)
    with memory_kept(when=device_of(form.state).type == "cpu"):
        yield from VariantGroup(form, graph, variants, None, states).outputs(inputs, size)


def _said(variants: Sequence[Sequence[Step]]) -> list[str]:
    """What each variant reads, block after block: by that lesions and orders differ."""
    return [str(list(map(_reading, steps))) for steps in variants]


def _reading(step: Step) -> tuple[object, ...]:
    return step.block, *reads(step)


class _Shares:
    """The variants, or every so many of them where several ranks share one batch, laid over one another when needed."""

    def __init__(
        self, form: ResidualForm, graph: Graph, variants: Sequence[Sequence[Step]], max_batch: int | None, stack: bool
    ) -> None:
        self._form, self._graph, self._variants = form, graph, variants
        self._max_batch = max_batch
        laid = weights_channels_last(graph, form.state) if stack else form.state
        self._states = () if not stack else (form.state,) if laid is form.state else (laid, form.state)
        self._by_share: dict[Share, list[tuple[Sequence[int], VariantGroup]]] = {}

    def parts(self, share: Share) -> list[tuple[Sequence[int], VariantGroup]]:
        """The numbers of variants that run together, and how."""
        if share not in self._by_share:
            mine = share.among(range(len(self._variants)))
            groups = [mine[start : start + _CHUNK] for start in range(0, len(mine), _CHUNK)]
            self._by_share[share] = [(numbers, self._part(numbers)) for numbers in groups]
        return self._by_share[share]

    def _part(self, numbers: Sequence[int]) -> VariantGroup:
        chosen = [self._variants[number] for number in numbers]
        return VariantGroup(self._form, self._graph, chosen, self._max_batch, self._states)


def lesioned(
    form: ResidualForm,
    sets: Iterable[Iterable[Removal]],
    instead: Mapping[BranchIndex, str] | None = None,
    *,
    bare: bool = False,
) -> list[tuple[Step, ...]]:
    """The steps of a form without each of some sets of branches, as variants for a `sweep`.

    Args:
        form: a traced model.
        sets: of blocks, or of (block, branch) pairs, branches from 0; see `ResidualForm.without`.
        instead: the stream that takes the place of each (block, branch); where there is none, it is left out.
        bare: whether the identity takes the place of the blocks, skips and all.

    Raises:
        IndexError: there is no such block or branch.
        ShapeError: a plain layer changes the size, so that no identity can take its place.
    """
    spared = Spared(form.graph, {block.index: len(block.branches) for block in form.all_blocks}, instead, bare=bare)
    return [spared.steps(which) for which in sets]


def _number(metric: Metric, output: Any, labels: Any) -> float:
    value = torch.as_tensor(metric(output, labels), device="cpu")
    if value.numel() != 1:
        raise ValueError(f"metric: it must give one number for a batch, a scalar tensor; it gave {list(value.shape)}.")
    return float(value)


def _stacked(parts: Sequence[VariantGroup]) -> dict[str, Tensor]:
    """How many ran together, and how many did not though they are alike; the last part may hold a single variant."""
    stacked, refused = (part.stacked for part in parts), (part.alike and not part.stacked for part in parts)
    return {"stacked": torch.tensor(sum(stacked), device="cpu"), "refused": torch.tensor(sum(refused), device="cpu")}

"""What takes the place of a branch's output: its mean over the data, or what it gave for another example."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unbraid._progress import how_many, progress
from unbraid.errors import DataError
from unbraid.form import ResidualForm
from unbraid.graph import BranchIndex, Stream
from unbraid.graph.state import device_of
from unbraid.ranks import Row
from unbraid.sweep import Batch, Batches, Feed, each_row

_EXAMPLES = "number of examples"  # among sums that have the names of streams


@dataclass(frozen=True)
class Replacement:
    """Streams that stand in for branches.

    Attributes:
        instead: the stream that takes the place of each (block, branch).
        given: these streams.
        feed: their values for a batch.
        form: the form whose steps put them in the branches' place, where another than the given one does.
    """

    instead: Mapping[BranchIndex, str]
    given: tuple[Stream, ...]
    feed: Feed | None
    form: ResidualForm | None = None


NOTHING = Replacement({}, (), None)


def means(form: ResidualForm, branches: Iterable[BranchIndex], batches: Batches) -> Replacement:
    """Each branch's mean over all examples, at each position, from a first pass over the data."""
    replacement = standing_in(form, branches, "mean of")
    sums: dict[str, Tensor] = {}

    def work(batch: Batch) -> Row:
        totals = {
            stream: value.to(torch.complex128 if value.is_complex() else torch.float64).sum(
                _along(form.streams[stream], batch), keepdim=True
            )
            for stream, value in _branches(form, replacement, batch).items()
        }
        return {**totals, _EXAMPLES: torch.tensor(batch.size, device="cpu")}

    with progress("means", how_many(batches)) as step:
        for row in each_row(form, batches, work):
            for stream, total in row.items():
                sums[stream] = _added(sums.get(stream), total, stream)
            step()
    examples = int(sums[_EXAMPLES])
    device = device_of(form.state)

    def feed(batch: Batch) -> dict[str, Tensor]:
        values = {}
        for branch, stream in streams_of(form, replacement).items():
            mean = (sums[stream] / examples).to(device, form.streams[stream].dtype)
            sizes = list(mean.shape)
            sizes[_along(form.streams[stream], batch)] = batch.size
            values[replacement.instead[branch]] = mean.expand(sizes)
        return values

    return replace(replacement, feed=feed)


def _added(so_far: Tensor | None, total: Tensor, stream: str) -> Tensor:
    if so_far is None:
        return total
    if so_far.shape != total.shape:
        raise DataError(
            f"mean: it is taken at each position, so all batches must have the same sizes; {stream!r} had "
            f"{list(so_far.shape)} and has {list(total.shape)} in a later batch (1 stands for the batch)."
        )
    return so_far + total


def others(form: ResidualForm, branches: Iterable[BranchIndex], generator: torch.Generator | None) -> Replacement:
    """What the branch of the whole model gives for another example of the batch.

    Who stands in for whom is drawn anew for each batch, a random cycle through all of its examples, and is the same
    for all branches. It depends on the generator and the batch's number alone, whichever rank runs the batch.
    """
    replacement = standing_in(form, branches, "another example's")
    drawn = generator if generator is not None else torch.Generator().manual_seed(0)
    seed = int(torch.randint(2**62, (), generator=drawn, device=drawn.device))

    def feed(batch: Batch) -> dict[str, Tensor]:
        if batch.size < 2:
            raise DataError(
                "resample: another example's output takes the place of each, so every batch must hold at least 2 "
                "examples; one holds 1. Drop it, or choose another batch size."
            )
        order = torch.randperm(batch.size, generator=torch.Generator().manual_seed(seed + batch.number), device="cpu")
        whose = torch.empty_like(order)
        whose[order] = order.roll(1)
        values = _branches(form, replacement, batch)
        return {
            replacement.instead[branch]: values[stream].index_select(
                _along(form.streams[stream], batch), whose.to(values[stream].device)
            )
            for branch, stream in streams_of(form, replacement).items()
        }

    return replace(replacement, feed=feed)


def standing_in(form: ResidualForm, branches: Iterable[BranchIndex], title: str) -> Replacement:
    """A stream in the place of each branch that the form still has, without values yet."""
    if form.circuit is not None:
        raise ValueError(
            "replace: this form runs a circuit, in which readers hear one branch's output differently, so no one value "
            'can take its place. Take replace="zero", or the form that it was made of.'
        )
    alive: dict[BranchIndex, str] = {}
    for add in form.adds:
        alive |= {(add.block, operand): stream for operand, stream in add.operands}
    instead = {branch: f"{title} {alive[branch]}" for branch in branches if branch in alive}
    given = [replace(form.streams[alive[branch]], id=name) for branch, name in instead.items()]
    return Replacement(instead, tuple(given), None)


def streams_of(form: ResidualForm, replacement: Replacement) -> dict[BranchIndex, str]:
    """The stream of each branch that is replaced."""
    operands = {add.block: dict(add.operands) for add in form.adds}
    return {(block, operand): operands[block][operand] for block, operand in replacement.instead}


def _branches(form: ResidualForm, replacement: Replacement, batch: Batch) -> dict[str, Tensor]:
    streams = tuple(streams_of(form, replacement).values())
    values = form.values(batch.args, batch.kwargs, streams)
    return {stream: values[stream] for stream in streams}


def _along(stream: Stream, batch: Batch) -> int:
    """The dimension that counts the examples; where the batch size is fixed, the first."""
    if "batch" in stream.shape:
        return stream.shape.index("batch")
    if stream.shape[:1] == (batch.size,):
        return 0
    raise ValueError(
        f"replace: no dimension of {stream.id!r} {list(stream.shape)} counts the {batch.size} examples of its batch: "
        'there is no mean over examples and no other example. replace="zero" needs neither.'
    )

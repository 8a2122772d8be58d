"""Batches of a data set as calls of a form, and jobs over them that go on where they were left."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor
from torch.utils import _pytree as pytree

from unbraid._modes import ordinary
from unbraid.errors import DataError
from unbraid.form import ResidualForm, refuse_empty_weights
from unbraid.graph import reads
from unbraid.graph.state import device_of
from unbraid.ranks import Row, Share, fingerprint, in_order
from unbraid.results import Brief
from unbraid.sweep._finished_rows import finished_rows

# Any iterable of (inputs, labels); inputs a tensor, a tuple of arguments, or a dict of keyword arguments.
Batches: TypeAlias = Iterable[Any]
Metric: TypeAlias = Callable[[Any, Any], Tensor]
_LOOKED_AT = 64  # tensors of a form, and numbers of each, that tell it from another


@dataclass(frozen=True)
class Resume:
    """Where a job over a data set keeps what is done, so that it goes on from there when it is run again.

    Attributes:
        path: an SQLite file, made where it is missing; None where nothing is kept.
        job: what is done with each batch.
        settings: what the rows depend on besides the form, the batches and the metric, which cannot be told by what it
            computes.
    """

    path: Path | str | None = None
    job: str = ""
    settings: object = None


NOWHERE = Resume()


@dataclass(frozen=True, eq=False, repr=False)
class Batch(Brief):
    """One batch of a data set, as a call of the form.

    Attributes:
        args: the positional inputs.
        kwargs: the keyword inputs.
        labels: whatever came with them.
        size: the number of examples.
        number: its place in the data set, counted from 0.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    labels: Any
    size: int
    number: int


def each_batch(form: ResidualForm, batches: Batches) -> Iterator[Batch]:
    """The batches one by one, on the form's device.

    Raises:
        DataError: there is none, or one is no pair of inputs and labels.
    """
    refuse_empty_weights(form.state)
    number = -1
    for number, item in enumerate(batches):
        yield _as_batch(form, item, number)
    if number < 0:
        raise _nothing()


def each_row(
    form: ResidualForm, batches: Batches, work: Callable[[Batch], Row], resume: Resume = NOWHERE
) -> Iterator[Row]:
    """What `work` gives for each batch, in order, whichever rank of several did it: sums over it are those of one.

    Raises:
        DataError: as `each_batch`, and where ranks were given different batches.
        CheckpointError: as `each_share`.
    """
    yield from each_share(form, batches, lambda batch, share: work(batch) if share.index == 0 else {}, resume=resume)


def each_share(
    form: ResidualForm,
    batches: Batches,
    work: Callable[[Batch, Share], Row],
    same: Callable[[], object] = lambda: None,
    resume: Resume = NOWHERE,
) -> Iterator[Row]:
    """As `each_row`, for work on a batch that can be shared out further; rows of one batch are added.

    `same` is what must be alike on all ranks besides the form and the batches. With a file to resume
    from, rows are written there as they are made, and those that are there already are not made again.

    Raises:
        CheckpointError: the file is of another job, form or settings, or cannot be read or written.
    """
    refuse_empty_weights(form.state)
    some = False

    def about() -> object:
        return _whole(form), _steps(form), same(), resume.settings

    with finished_rows(resume.path, resume.job, about) as finished:
        items: dict[int, Any] = {}  # those whose rows are on their way

        def numbered(item: tuple[int, Any], share: Share) -> Row:
            number, batch = item
            done = finished.of(number, batch)
            if done is not None:
                return done if share.index == 0 else {}
            return work(_as_batch(form, batch, number), share)

        def watched() -> Iterator[tuple[int, Any]]:
            for number, batch in enumerate(batches):
                items[number] = batch
                yield number, batch

        for number, row in enumerate(in_order(watched(), numbered, lambda: (_looks(form), same()))):
            some = True
            finished.add(number, items.pop(number), row)
            yield row
    if not some:
        raise _nothing()


def _whole(form: ResidualForm) -> list[object]:
    """All tensors of a form, each by its checksum: weights that are left in files are read one at a time."""
    parts: list[object] = []
    for name in sorted(form.state):
        parts += [name, fingerprint(form.state[name])]
    return parts


def _steps(form: ResidualForm) -> list[str]:
    """What each step reads, block after block: by that forms of one model differ, after deletions and new orders."""
    return [str((step.block, *reads(step))) for step in form.graph.steps]


def _looks(form: ResidualForm) -> list[object]:
    """Enough of a form to tell it from another: its streams, and the beginning of some of its tensors."""
    names = sorted(form.state)
    some = (form.state[name] for name in names[:: max(1, len(names) // _LOOKED_AT)])
    return [*form.graph.streams, *names, *(tensor.flatten()[:_LOOKED_AT] for tensor in some)]


def _nothing() -> DataError:
    return DataError(
        "batches: there was none. An iterator that has been read once is empty; give a list or a DataLoader."
    )


def _as_batch(form: ResidualForm, item: Any, number: int) -> Batch:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(
            f"batches: each must be a pair (inputs, labels), inputs a tensor, a tuple or a dict; batch {number} is "
            f"{_described(item)}."
        )
    device = device_of(form.state)

    def placed(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.is_meta:
            raise DataError(f"batches: batch {number} lies on the meta device and has no values. Give real tensors.")
        return ordinary(leaf.to(device)) if isinstance(leaf, Tensor) else leaf

    inputs, labels = pytree.tree_map(placed, (*item,))
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(inputs, Mapping):
        kwargs = dict(inputs)
    else:
        args = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    first = next((leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.ndim), None)
    if first is None or len(first) == 0:
        raise DataError(
            f"batches: batch {number} must hold a tensor of inputs, [batch, ...]; {_described(inputs)} came."
        )
    return Batch(args, kwargs, labels, len(first), number)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"

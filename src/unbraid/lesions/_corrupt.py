"""What takes the place of a branch's output: what it gives in the whole model at a corrupt batch.

The corrupt inputs of a batch travel beside its labels, (inputs, (labels, corrupt inputs)): so whatever takes a batch,
one of several ranks or a file of finished batches, takes both, and a batch whose corrupt inputs changed is run again.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

from torch import Tensor

from unbraid._progress import how_many
from unbraid.capture.signature import as_call
from unbraid.capture.trees import tensors_in
from unbraid.errors import DataError, ShapeError
from unbraid.form import ResidualForm
from unbraid.graph import BranchIndex
from unbraid.lesions._positions import Positions, masks_of, patched
from unbraid.lesions._replace import Replacement, standing_in, streams_of
from unbraid.sweep import Batch, Batches, Metric

_ENDED = object()


class BesideCorrupt:
    """Batches, each with the inputs of its corrupt one beside the labels.

    Raises:
        DataError: there are not as many of both; or one is neither inputs nor a pair of inputs and labels.
    """

    def __init__(self, batches: Batches, corrupt: Batches) -> None:
        self._batches, self._corrupt = batches, corrupt
        clean, other = how_many(batches), how_many(corrupt)
        if clean is not None and other is not None and clean != other:
            raise _another_count(str(clean), str(other))

    def __len__(self) -> int:
        known = how_many(self._batches)
        if known is None:
            raise TypeError("these batches do not know how many they are")
        return known

    def __iter__(self) -> Iterator[Any]:
        clean, corrupt = iter(self._batches), iter(self._corrupt)
        for number in count():
            item, other = next(clean, _ENDED), next(corrupt, _ENDED)
            if item is _ENDED and other is _ENDED:
                return
            if item is _ENDED or other is _ENDED:
                ended, more = str(number), f"more than {number}"
                raise _another_count(*((ended, more) if item is _ENDED else (more, ended)))
            yield _beside(item, _inputs(other, number))


def of_clean(metric: Metric) -> Metric:
    """The metric, of labels that have corrupt inputs beside them."""
    return lambda output, beside: metric(output, beside[0])


def at_corrupt(form: ResidualForm, branches: Iterable[BranchIndex], positions: Positions | None) -> Replacement:
    """What each branch gives at the corrupt batch, at all positions or at some."""
    replacement = standing_in(form, branches, "at the corrupt batch,")
    streams = streams_of(form, replacement)

    def feed(batch: Batch) -> dict[str, Tensor]:
        corrupt = batch.labels[1]
        _check_sizes(form, batch, corrupt)
        values = form.values(corrupt, None, tuple(streams.values()))
        return {replacement.instead[branch]: values[stream] for branch, stream in streams.items()}

    if positions is None:
        return replace(replacement, feed=feed)
    masks = masks_of(form, streams, positions)
    graph, instead = patched(form.graph, replacement, masks.streams)

    def feed_with_masks(batch: Batch) -> dict[str, Tensor]:
        values = feed(batch)
        taken = {branch: values[name] for branch, name in replacement.instead.items()}
        return {**values, **masks.of(batch, taken)}

    return Replacement(instead, (), feed_with_masks, replace(form, graph=graph))


def _beside(item: Any, corrupt: Any) -> Any:
    if not isinstance(item, tuple | list) or len(item) != 2:
        return item  # which is refused where batches are read
    inputs, labels = item
    return inputs, (labels, corrupt)


def _inputs(item: Any, number: int) -> Any:
    """The inputs of a corrupt batch, which may have labels of its own."""
    if isinstance(item, Tensor | Mapping):
        return item
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0]
    raise DataError(
        "corrupt: each must be inputs alone, a tensor or a dict, or a pair (inputs, labels) as in batches; batch "
        f"{number} is a {type(item).__name__}."
    )


def _check_sizes(form: ResidualForm, batch: Batch, corrupt: Any) -> None:
    clean, other = form.inputs(batch.args, batch.kwargs), None
    failure = None
    try:
        other = form.inputs(corrupt)
    except ShapeError as error:
        failure = error
    if other is None or any(clean[stream].shape != value.shape for stream, value in other.items()):
        raise DataError(
            f"corrupt: each batch must have the sizes of its clean one. Batch {batch.number} is "
            f"{_sizes((batch.args, batch.kwargs))} in batches, and {_sizes(as_call(corrupt, None))} in corrupt."
        ) from failure


def _sizes(call: Any) -> str:
    return ", ".join(str(list(tensor.shape)) for tensor in tensors_in(call))


def _another_count(clean: str, corrupt: str) -> DataError:
    return DataError(
        f"corrupt: there must be one batch for each of batches; batches has {clean}, and corrupt has {corrupt}. "
        "An iterator that has been read once is empty."
    )

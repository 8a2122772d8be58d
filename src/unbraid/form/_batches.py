from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor
from torch.utils import _pytree as pytree

from unbraid.errors import DataError
from unbraid.form._form import ResidualForm
from unbraid.walk import device_of

# Any iterable of (inputs, labels); inputs a tensor, a tuple of arguments, or a dict of keyword arguments.
Batches: TypeAlias = Iterable[Any]
Metric: TypeAlias = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of a data set, as a call of the form.

    Attributes:
        args: the positional inputs.
        kwargs: the keyword inputs.
        labels: whatever came with them.
        size: the number of examples.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    labels: Any
    size: int


def each_batch(form: ResidualForm, batches: Batches) -> Iterator[Batch]:
    """The batches one by one, on the form's device.

    Raises:
        DataError: there is none, or one is no pair of inputs and labels.
    """
    device = device_of(form.state)
    number = -1
    for number, item in enumerate(batches):
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(
                f"batches: each must be a pair (inputs, labels), inputs a tensor, a tuple or a dict; batch {number} is "
                f"{_described(item)}."
            )
        inputs, labels = pytree.tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, (*item,))
        yield _as_batch(inputs, labels, number)
    if number < 0:
        raise DataError(
            "batches: there was none. An iterator that has been read once is empty; give a list or a DataLoader."
        )


def _as_batch(inputs: Any, labels: Any, number: int) -> Batch:
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
    return Batch(args, kwargs, labels, len(first))


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"

"""What takes the place of a deleted branch's module: zeros, without parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class _Zeros:
    """Zeros in the place of a tensor. A size is a number, or (d,): as large as dimension d of the input."""

    sizes: tuple[int | tuple[int], ...]
    dtype: torch.dtype | None  # None: the input's own


@dataclass(frozen=True)
class _Given:
    """What came in as the n-th leaf of the arguments, and left as it came: a cache, say."""

    number: int


@final
class Nothing(nn.Module):
    """Adds nothing: for every tensor that a module returned, zeros of its size.

    The sizes that were equal to a size of the input follow the input; the others are those of the example.

    Args:
        result: what to return: a tree of zeros, given objects and constants.
    Shape: that of the module in whose place it stands.
    """

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    @staticmethod
    def like(args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> "Nothing":
        """In the place of a module that gave this output for these arguments.

        Raises:
            ValueError: the output is no tree of tensors, constants and arguments.
        """
        given = pytree.tree_leaves((args, dict(kwargs)))
        leader = _leader(given)
        return Nothing(pytree.tree_map(lambda leaf: _instead(leaf, given, leader), output))

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # whatever the module took
        """Return zeros in the structure of the module's result."""
        given = pytree.tree_leaves((args, kwargs))
        leader = _leader(given)

        def filled(leaf: Any) -> Any:
            if isinstance(leaf, _Given):
                return given[leaf.number]
            if isinstance(leaf, _Zeros):
                sizes = [leader.shape[size[0]] if isinstance(size, tuple) else size for size in leaf.sizes]
                return leader.new_zeros(sizes, dtype=leaf.dtype)
            return leaf

        return pytree.tree_map(filled, self.result)


def _leader(given: list[Any]) -> Tensor:
    """The first float tensor among the arguments: the stream that the branch reads."""
    for leaf in given:
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return leaf
    raise ValueError("no float tensor came in, so there is nothing to take the size from")


def _instead(leaf: Any, given: list[Any], leader: Tensor) -> Any:
    if leaf is None or isinstance(leaf, bool | int | float | str):
        return leaf
    if not isinstance(leaf, Tensor) or any(leaf is other for other in given if other is not leader):
        numbers = [number for number, other in enumerate(given) if other is leaf]
        if not numbers:
            raise ValueError(f"it returns a {type(leaf).__name__}, which is neither a tensor nor what came in")
        return _Given(numbers[0])
    dtype = None if leaf.dtype is leader.dtype else leaf.dtype
    return _Zeros(tuple(_size(leaf, place, leader) for place in range(leaf.ndim)), dtype)


def _size(leaf: Tensor, place: int, leader: Tensor) -> int | tuple[int]:
    """The same place of the input first: [batch, positions, features] must not be mixed up where sizes agree."""
    size = leaf.shape[place]
    places = [place, *range(leader.ndim)]
    return next(((d,) for d in places if d < leader.ndim and leader.shape[d] == size and size > 1), size)

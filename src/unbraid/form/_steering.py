"""The stream before a block, by the block; and vectors that are added there."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from unbraid._modes import ordinary
from unbraid.capture.signature import Sizes, TensorSpec
from unbraid.capture.trees import leaves_of
from unbraid.discover import BlockLike, every_block, index_of
from unbraid.errors import DataError, ShapeError
from unbraid.form._core import Form
from unbraid.form._empty import on_meta
from unbraid.graph.state import device_of, joined
from unbraid.graph.steering import steered, unused

F = TypeVar("F", bound=Form)
_END = "end"


def stream_before(form: Form, block: BlockLike, call: str) -> str:
    """The stream from which a block's skip and branches part; of "end", the stream that reaches the head.

    Raises:
        IndexError: there is no such block, or nothing computes the stream any more.
        ValueError: the form runs a circuit.
    """
    if form.circuit is not None:
        raise ValueError(
            f"{call}: this form runs a circuit, in which each reader of a block has a stream of its own. Ask the form "
            "that it was made of: form.steered(...) first, and .only(...) then."
        )
    if isinstance(block, str) and block == _END:
        return form.end
    index = index_of(form.blocks, block, call)
    fork = next((add.fork for add in form.adds if add.block == index), None)
    if fork is None or (fork not in form.graph.makers and fork not in form.graph.inputs):
        name = next(block.name for block in every_block(form.blocks) if block.index == index)
        raise IndexError(
            f"{call}: block {index} ({name!r}) is gone: nothing reads it without the branches that were deleted."
        )
    return fork


def with_vectors(form: F, vectors: Mapping[BlockLike, Tensor]) -> F:
    """The form with vectors added to streams; see `ResidualForm.steered`."""
    for block, vector in vectors.items():
        stream = stream_before(form, block, "steered")
        fixed = _fixed_sizes(form, stream, vector)
        parameter = unused(f"steering of {stream}", form.state)
        value = ordinary(vector).detach().to(device_of(form.state), form.streams[stream].dtype, copy=True)
        form = replace(
            _at_sizes(form, fixed) if fixed else form,
            state=joined(form.state, {parameter: value}),
            steering=(*form.steering, parameter),
            error=float("nan"),
        )
        form = replace(form, graph=steered(form.graph, stream, parameter))
    return form


def _fixed_sizes(form: Form, stream: str, vector: Tensor) -> dict[str, int]:
    """The sizes of the inputs that a vector fixes: a number of positions, say, of which each gets its own.

    Raises:
        TypeError: the vector is no tensor, or complex where the stream is not.
        ShapeError: it does not broadcast to the stream's shape.
        DataError: it has no values.
    """
    described = form.streams[stream]
    if not isinstance(vector, Tensor) or (vector.is_complex() and not described.dtype.is_complex):
        kind = _type(vector.dtype) if isinstance(vector, Tensor) else type(vector).__name__
        raise TypeError(f"steered: a vector is a tensor that becomes {_type(described.dtype)}; {kind} came.")
    if vector.is_meta and not on_meta(form.state):
        raise DataError("steered: a vector lies on the meta device and has no values. Give a real tensor.")
    fixed: dict[str, int] = {}
    free = _free_sizes(form)
    if vector.ndim > len(described.shape):
        raise _unfit(form, stream, vector)
    for size, came in zip(reversed(described.shape), reversed(vector.shape), strict=False):
        if came == 1 or came == size:
            continue
        if not isinstance(size, str) or size not in free or fixed.get(size, came) != came:
            raise _unfit(form, stream, vector)
        fixed[size] = came
    return fixed


def _free_sizes(form: Form) -> set[str]:
    """The free sizes of the inputs but that of the batch: the same vector is added for all examples."""
    leaves = (leaf for value in form.signature.inputs.values() for leaf in leaves_of(value))
    sizes = set[int | str]().union(*(leaf.sizes for leaf in leaves if isinstance(leaf, TensorSpec)))
    return {size for size in sizes if isinstance(size, str) and size != "batch"}


def _at_sizes(form: F, fixed: Mapping[str, int]) -> F:
    """The form for inputs of these sizes alone."""

    def known(shape: Sizes) -> Sizes:
        return tuple(fixed.get(size, size) if isinstance(size, str) else size for size in shape)

    streams = {name: replace(stream, shape=known(stream.shape)) for name, stream in form.streams.items()}
    return replace(form, graph=replace(form.graph, streams=streams), signature=form.signature.renamed(known))


def _unfit(form: Form, stream: str, vector: Tensor) -> ShapeError:
    shape = form.streams[stream].shape
    return ShapeError(
        f"steered: a vector must broadcast to the stream before the block, {stream!r}, the same for all examples.\n"
        f"  stream  [{', '.join(map(str, shape))}]\n  vector  {list(vector.shape)}\n"
        "  Give the stream's own size, or 1, in each dimension; 1 for the batch and for sizes that are computed.",
        block=stream,
        shapes={
            "stream": tuple(size for size in shape if isinstance(size, int)),
            "vector": tuple(vector.shape),
        },
    )


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

"""Another input for a check: other examples, and another number of them wherever the sizes are free.

Which sizes vary together is what the exporter found. Where each input is a batch of examples, two of them are enough;
elsewhere dimensions grow by one, as numbers may be places along them, which fewer would lack. Floats are drawn afresh,
or are the given ones times numbers near one, so that signs and zeros stay.
"""

from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor

from unbraid.capture.signature import TensorSpec
from unbraid.capture.trees import flatten, leaves_of, mapped_tensors
from unbraid.form._core import Form

FEW = 2  # examples; a batch of one is another matter to many models
Grown: TypeAlias = tuple[frozenset[int], ...]  # for each leaf of the arguments the dimensions that grow


def growing(form: Form, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Grown]:
    """Which dimensions may grow together: those of the sizes with which inputs begin, of all and then of each."""
    leaves = _sizes(form, args, kwargs)
    free = {size for size in chain.from_iterable(leaves) if isinstance(size, str)}
    if not all(size.isidentifier() for size in free):  # one is computed from others
        return
    begins = [*dict.fromkeys(sizes[0] for sizes in leaves if sizes and sizes[0] in free)]
    for growing in [begins, *([size] for size in begins if len(begins) > 1)]:
        if growing:
            yield tuple(_dimensions(sizes, growing) for sizes in leaves)


def _dimensions(sizes: tuple[int | str, ...], growing: Collection[int | str]) -> frozenset[int]:
    """The dimensions whose size is one of those that grow."""
    return frozenset(dimension for dimension, size in enumerate(sizes) if size in growing)


def batched(form: Form, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether each input is a batch of more than two examples, along its first dimension alone."""
    tensors = [leaf for leaf in leaves_of((args, dict(kwargs))) if isinstance(leaf, Tensor)]
    shapes = [sizes for sizes in _sizes(form, args, kwargs) if sizes]
    if not shapes or len(shapes) != len(tensors) or not isinstance(shapes[0][0], str):
        return False
    batch = shapes[0][0]
    return len(tensors[0]) > FEW and all(sizes[0] == batch and batch not in sizes[1:] for sizes in shapes)


def _sizes(form: Form, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[tuple[int | str, ...]]:
    """The sizes of each leaf of a call's arguments as they were traced; none for what is no tensor."""
    named = [*zip(form.signature.forward, args, strict=False), *kwargs.items()]
    traced = chain.from_iterable(leaves_of(form.signature.inputs.get(name)) for name, _ in named)
    return [leaf.sizes if isinstance(leaf, TensorSpec) else () for leaf in traced]


def another(
    args: tuple[Any, ...], kwargs: dict[str, Any], *, more: int, grown: Grown | None = None, gently: bool = False
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Other examples of an input.

    Floats are drawn afresh; gently they are the given ones times numbers near one, so that signs and zeros stay. Ids
    and masks are turned around, and their first row repeated; gently they stay, and the last is repeated.

    Args:
        args: the positional arguments.
        kwargs: the keyword arguments.
        more: by how many rows dimensions grow; where it is negative, two rows are left.
        grown: which do, by leaf; the first of each where nothing is said.
        gently: whether to stay near the given values.
    """
    generator = torch.Generator().manual_seed(0)
    leaves, structure = flatten((args, kwargs))
    chosen = grown if grown is not None and len(grown) == len(leaves) else tuple(frozenset({0}) for _ in leaves)

    def other(tensor: Tensor, growing: frozenset[int]) -> Tensor:
        for dimension in {0, *growing} if tensor.ndim else ():
            rows = torch.arange(tensor.shape[dimension], device="cpu")
            rows = rows.flip(0) if dimension == 0 and not gently else rows
            last = rows[-1:] if gently else torch.zeros_like(rows[:1])
            rows = torch.cat([rows, *([last] * more if dimension in growing else [])])
            rows = rows[:FEW] if more < 0 and dimension in growing else rows
            tensor = tensor.index_select(dimension, rows.to(tensor.device))
        if not tensor.ndim or not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor
        drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64, device="cpu")
        return tensor * torch.exp(drawn / 4).to(tensor) if gently else drawn.to(tensor)

    pairs = zip(leaves, chosen, strict=True)
    new_leaves = [other(leaf, growing) if isinstance(leaf, Tensor) else leaf for leaf, growing in pairs]
    remade: tuple[tuple[Any, ...], dict[str, Any]] = structure.filled(iter(new_leaves))
    return remade


def few_examples(
    form: Form, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The first two examples, where each input is a batch of them and they are separate: as in eval mode."""
    training = form.origin is not None and form.origin.model is not None and form.origin.model.training
    if training or not batched(form, args, kwargs):
        return args, dict(kwargs)
    few: tuple[tuple[Any, ...], dict[str, Any]] = mapped_tensors(lambda tensor: tensor[:FEW], (args, dict(kwargs)))
    return few

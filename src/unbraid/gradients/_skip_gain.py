"""How much a network's mixed skips amplify, block after block: hyper-connections, and mHC's remedy.

The skip of such a block mixes n streams, X ← R X + q ⊗ f(p X), with weights R that the data may decide; what passes all
skips from block i to block j is multiplied by the product

    R_{j→i} = R_j R_{j−1} ⋯ R_i

whose largest absolute row sum bounds the growth of a value, and whose largest absolute column sum that of a gradient
(DeepSeek's mHC, 2025: some 3000 for free R at 27 billion parameters; 1.6 where every R is doubly stochastic).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._figures import Axes, Figure
from unbraid._modes import outside_modes
from unbraid.form import ResidualForm
from unbraid.graph import Add, Segment
from unbraid.graph.state import State
from unbraid.results import Result, relative_error, tolerance
from unbraid.results.rows import Row, as_rows

_MOST_STREAMS = 64


@dataclass(frozen=True, eq=False, repr=False)
class SkipGain(Result):
    """The mixes of a form's skips at one input, and how much their products amplify.

    Attributes:
        names: the names of the blocks whose skip is a mix, in order of execution; where none is, of those whose skip is
            a projection, as a mix by learned weights alone is one.
        blocks: their indices.
        maps: R of each, [examples, streams, streams]: row i says what stream i takes of the others. Positions count as
            examples.
        forward: for blocks i ≤ j the largest absolute row sum of R_j ⋯ R_i over all examples, at [i, j]; nan for i > j.
        backward: the same of column sums.
        error: ‖R X − skip(X)‖∞ relative to the skip, the largest over blocks.
    """

    names: tuple[str, ...]
    blocks: tuple[int, ...]
    maps: tuple[Float[Tensor, "examples streams streams"], ...]
    forward: Float[Tensor, "blocks blocks"]
    backward: Float[Tensor, "blocks blocks"]
    error: float

    @property
    def gain(self) -> float:
        """The largest composite gain, of rows or columns, over all pairs of blocks."""
        both = torch.stack([self.forward, self.backward])
        return float(both[~both.isnan()].max())

    @property
    def caption(self) -> str:
        """How exact the mixes are."""
        return f"products of the held skips; each equals its skip to {self.error:.1e}"

    def rows(self) -> list[Row]:
        """One row per block: its own gains, and those of all skips up to it."""
        return as_rows(
            {
                "block": self.names,
                "rows": self.forward.diagonal(),
                "columns": self.backward.diagonal(),
                "rows so far": self.forward[0],
                "columns so far": self.backward[0],
            }
        )

    def scalars(self) -> dict[str, float]:
        """The largest composite gain, and the error."""
        return {"gain": self.gain, "error": self.error}

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The composite gains from the first block on."""
        from unbraid.draw.gradients import skip_gain  # matplotlib is imported where a figure is wanted

        return skip_gain(self.forward[0].tolist(), self.backward[0].tolist(), ax=ax)


@outside_modes
def skip_gain(form: ResidualForm, args: Any, kwargs: Mapping[str, Any] | None = None) -> SkipGain:
    """The skips that mix streams as matrices at an input, and the gain of their products (mHC, DeepSeek 2025).

    Args:
        form: a traced model.
        args: its positional inputs; a bare tensor means (tensor,).
        kwargs: its keyword inputs.

    Returns:
        The mixes of the top-level blocks, and for each pair of blocks the composite gain of values and of gradients.

    Raises:
        ValueError: no block's skip is a mix, or one mixes along no single dimension.
    """
    mixing = [block for block in form.blocks if block.skip == "mix"]
    if not mixing:  # what is mixed by learned weights that no data reach is a projection
        mixing = [block for block in form.blocks if block.skip == "projection"]
    if not mixing:
        kinds = sorted({block.skip for block in form.blocks})
        raise ValueError(f"skip_gain: no skip of this form mixes streams; its skips are of the kinds {kinds}.")
    adds = {add.block: add for add in form.adds}
    segments = [_skip(form, adds[block.index]) for block in mixing]
    streams = tuple(dict.fromkeys(stream for segment in segments for stream in segment.inputs))
    values = form.values(args, kwargs, streams)
    maps, errors = [], []
    for block, segment in zip(mixing, segments, strict=True):
        matrix, error = _matrix(segment, form.state, values, adds[block.index].fork, form.precision, block.name)
        maps.append(matrix)
        errors.append(error)
    if len({matrix.shape[-1] for matrix in maps}) > 1:
        sizes = {block.name: matrix.shape[-1] for block, matrix in zip(mixing, maps, strict=True)}
        raise ValueError(f"skip_gain: the skips mix different numbers of streams, and have no product: {sizes}.")
    forward, backward = _gains(maps)
    names = tuple(block.name for block in mixing)
    return SkipGain(names, tuple(b.index for b in mixing), tuple(maps), forward, backward, max(errors))


def _skip(form: ResidualForm, add: Add) -> Segment:
    segment = form.graph.makers[add.skip] if add.skip is not None else None
    if not isinstance(segment, Segment):
        raise ValueError(
            f"skip_gain: the skip of block {add.block} was deleted, or moved; ask the form as it was traced."
        )
    return segment


def _matrix(
    segment: Segment, state: State, values: Mapping[str, Any], fork: str, precision: torch.dtype, name: str
) -> tuple[Tensor, float]:
    """R by what the skip makes of one stream at a time, along the dimension that it mixes; and its error."""

    def skip(x: Tensor) -> Tensor:
        given = [x if stream == fork else values[stream] for stream in segment.inputs]
        with torch.no_grad():
            return segment.code(*given, *(state[param].detach() for param in segment.params))

    value = values[fork]
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(value.shape, generator=generator, dtype=torch.float64, device="cpu").to(value)
    expected, bound = skip(probe), tolerance("sum", precision)
    for before in _dimensions(value):
        size = before.unfolded(value).shape[-2]
        made = [skip(before.unit(value, j)) for j in range(size)]
        for after in _dimensions(expected):
            whole, streams = after.unfolded(expected), before.unfolded(probe)
            if whole.shape != streams.shape:
                continue
            matrix = torch.stack([after.unfolded(one)[..., 0] for one in made], -1)  # the same for every feature
            error = relative_error(matrix @ streams, whole)
            if error <= bound:
                return matrix.reshape(-1, size, size), error
    raise ValueError(f"skip_gain: the skip of block {name!r} mixes along no single dimension of {list(value.shape)}.")


@dataclass(frozen=True)
class _Place:
    """Where the streams lie: a dimension between the batch and the features, or folded into the batch."""

    folds: int | None
    along: int

    def unfolded(self, value: Tensor) -> Tensor:
        """The tensor with the streams as its last dimension but one."""
        value = value if self.folds is None else value.view(-1, self.folds, *value.shape[1:])
        return value.movedim(self.along, -2)

    def unit(self, like: Tensor, stream: int) -> Tensor:
        """One in a stream, and zero in the others."""
        one = torch.zeros_like(like)
        self.unfolded(one).select(-2, stream).fill_(1)
        return one


def _dimensions(value: Tensor) -> list[_Place]:
    """Where the streams of a tensor may lie; a skip may move them elsewhere."""
    most = min(_MOST_STREAMS, value.shape[0])
    found = [_Place(None, d) for d in range(1, value.ndim) if 1 < value.shape[d] <= _MOST_STREAMS]
    return found + [_Place(n, 1) for n in range(2, most + 1) if value.shape[0] % n == 0]


def _gains(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    count = len(maps)
    forward = torch.full((count, count), torch.nan, dtype=torch.float64, device="cpu")
    backward = forward.clone()
    for i in range(count):
        product = maps[i].double()
        for j in range(i, count):
            product = product if j == i else maps[j].double() @ product
            forward[i, j] = product.abs().sum(-1).max()
            backward[i, j] = product.abs().sum(-2).max()
    return forward, backward

"""What is put in the place of what writers write: their values at a corrupt input, zeros, or their means."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from unbraid.errors import DataError
from unbraid.form import ResidualForm, inputs_of
from unbraid.graph import Stream
from unbraid.sweep import dimension
from unbraid.walk import run

_MASK = "attention_mask"


def refuse_neither_or_both(corrupt: Any, fill: str | None, call: str) -> None:
    """Refuse a call that does not say what takes the place of the clean values, or says it twice.

    Raises:
        ValueError: both or none is given, or `fill` is unknown.
    """
    if fill not in (None, "zero", "mean"):
        raise ValueError(f'{call}: fill is "zero" or "mean"; {fill!r} came.')
    if (corrupt is None) == (fill is None):
        came = "none of them" if fill is None else "both"
        raise ValueError(
            f'{call}: what takes the place of clean values is either a corrupt input or fill="zero" or "mean"; {came} '
            "came."
        )


def values_at(form: ResidualForm, streams: Iterable[str], inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The values of some streams at an input."""
    wanted = tuple(streams)
    with torch.no_grad():
        values = run(form.graph, form.state, inputs, keep=wanted)
    return {stream: values[stream] for stream in wanted}


def replacements(
    form: ResidualForm,
    clean: Mapping[str, Tensor],
    inputs: Mapping[str, Any],
    corrupt: Any,
    fill: str | None,
) -> dict[str, Tensor]:
    """What takes the place of some streams.

    Args:
        form: the form.
        clean: their values at the clean input.
        inputs: the clean inputs, by stream: a mean leaves out the positions that their attention mask leaves out.
        corrupt: the corrupt call, or None.
        fill: "zero" or "mean" over the examples, at each position; or None.

    Raises:
        DataError: the corrupt input has other sizes.
    """
    if fill == "zero":
        return {stream: torch.zeros_like(value) for stream, value in clean.items()}
    if fill == "mean":
        mask = inputs.get(_MASK)
        return {stream: _mean(form.streams[stream], value, mask) for stream, value in clean.items()}
    other = values_at(form, clean, inputs_of(form, corrupt))
    for stream, value in clean.items():
        if other[stream].shape != value.shape:
            raise DataError(
                f"edges: clean and corrupt inputs must have the same sizes, so that one value can take the other's "
                f"place; {stream!r} is {list(value.shape)} at the clean one and {list(other[stream].shape)} at the "
                "corrupt one. Pad the shorter, or cut the longer."
            )
    return other


def _mean(stream: Stream, value: Tensor, mask: Any) -> Tensor:
    along = dimension(stream)
    if along is None:
        raise DataError(
            f"edges: {stream.id!r} {list(stream.shape)} has no one dimension that counts the examples, so there is no "
            'mean over them. fill="zero" needs none.'
        )
    weights = torch.ones((), dtype=value.dtype, device=value.device)
    if isinstance(mask, Tensor) and along == 0 and value.ndim > 2 and mask.shape == value.shape[:2]:
        weights = mask.to(value).reshape(*mask.shape, *[1] * (value.ndim - 2))
    weights = weights.expand(value.shape)
    counts = weights.sum(along, keepdim=True)
    return ((value * weights).sum(along, keepdim=True) / counts.clamp_min(1)).expand_as(value)

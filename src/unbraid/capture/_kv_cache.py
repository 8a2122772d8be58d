"""A key-value cache is asked for or not by an argument that language models share."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

_ASKED, _GIVEN = "use_cache", "past_key_values"
_NOTE = (
    f"{_ASKED}=False was passed to the model: a cache would be one more output of every layer. Give {_ASKED}=True to "
    "have it in the form."
)


def without_cache(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The keyword arguments with `use_cache=False`, where the model takes it and nobody said; and a note of it."""
    parameters = inspect.signature(model.forward).parameters
    asked = parameters.get(_ASKED)
    given = {*list(parameters)[: len(args)], *kwargs}
    if asked is None or asked.kind is asked.POSITIONAL_ONLY or given & {_ASKED, _GIVEN} or asked.default is False:
        return dict(kwargs), ()
    return {**kwargs, _ASKED: False}, (_NOTE,)

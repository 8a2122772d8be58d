"""Inputs for any model of transformers, from the names and the order in its forward's signature.

What an input of a name looks like stands in a table, in sizes that are read from the model's configuration. How many
placeholders for an image or a sound a text must hold is not to be read there; a model says it when it is called with
none, or one of a few numbers holds. So there are several candidates, richest first, and the first that the model takes
is its input. Batches have two examples.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import torch
from torch import nn

from zoo.config_sizes import Sizes
from zoo.input_makers import BATCH, MAKERS, TEXT, text

PLACEHOLDERS = (16, 4, 1, 17, 64, 8, 2, 9, 32, 5, 65, 36, 3, 6, 10, 12, 20, 25, 40, 49, 50, 100)
_NUMBER = re.compile(r"features:? ?\(?(\d+)")


# Beside what a forward asks for: these make a model with several kinds of input run all of itself.
OFFERED = ("input_ids", "pixel_values", "input_features", "input_values", "decoder_input_ids", "bbox", "image_grid_thw",
           "image_sizes", "spatial_shapes", "image_merge_sizes", "grid_thw", "image_grid_hws")  # fmt: skip
_FEATURE_MASKS = ("input_features_mask", "feature_attention_mask")
SWITCHES = {"use_cache": False, "use_mems": False}


def candidates(model: nn.Module, exceptions: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Keyword inputs for a model, richest first."""
    sizes = Sizes(model.config)
    parameters = inspect.signature(model.forward).parameters
    needed = [name for name, one in parameters.items() if one.default is one.empty and one.kind not in (2, 4)]
    main = model.main_input_name
    main = main if isinstance(main, str) else main[0]
    switches = {name: value for name, value in SWITCHES.items() if name in parameters}
    special = dict(exceptions or {})
    wanted = [name for name in OFFERED if name in parameters]
    if "input_ids" in wanted and "decoder_input_ids" in wanted and main != "input_ids":
        wanted.remove("input_ids")
    sets = (
        wanted,
        ["input_ids", "pixel_values"],
        ["input_ids", "input_features", *_FEATURE_MASKS],
        ["input_features", *_FEATURE_MASKS],
        [main, "decoder_input_ids"],
        [main],
        ["input_ids"],
        ["pixel_values"],
    )
    tried: list[list[str]] = []
    for names in sets:
        chosen = [name for name in dict.fromkeys([*names, *needed]) if name in parameters]
        if chosen in tried or any(name not in MAKERS and name not in special for name in chosen):
            continue
        tried.append(chosen)
        for kwargs in _combined([name for name in chosen if name not in special], sizes):
            yield {**kwargs, **switches, **special}


def _combined(names: list[str], sizes: Sizes) -> Iterator[dict[str, Any]]:
    """The first spelling of each input, then every other combination, nearest to the first ones first."""
    spellings = [[make(sizes) for make in MAKERS[name]] for name in names]
    for chosen in sorted(product(*(range(len(made)) for made in spellings)), key=sum):
        yield {name: made[index] for name, made, index in zip(names, spellings, chosen, strict=True)}


def fit(model: nn.Module, exceptions: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The first inputs that a model takes.

    Raises:
        ValueError: it takes none; what it said to each.
    """
    sizes, said = Sizes(model.config), {}
    parameters = inspect.signature(model.forward).parameters
    for kwargs in candidates(model, exceptions):
        error = _refusal(model, kwargs)
        if error and "input_ids" in kwargs and sizes.placeholders and len(kwargs) > 1:
            for filled in _filled(kwargs, sizes, error, "mm_token_type_ids" in parameters):
                if not _refusal(model, filled):
                    return filled
        if not error:
            return kwargs
        said[error] = None
    raise ValueError(" / ".join(said) or "no input of these names is known")


def _filled(kwargs: dict[str, Any], sizes: Sizes, error: str, typed: bool) -> Iterator[dict[str, Any]]:
    """The text with so many placeholders of one kind, and, where a model asks for it, which tokens they are."""
    number = _NUMBER.search(error)
    counts = [int(number[1]) // BATCH, int(number[1]) // BATCH // 64] if number else []
    for placeholder in sizes.placeholders:
        for count in dict.fromkeys([*counts, *PLACEHOLDERS]):
            if 0 < count <= 256:
                ids = text(sizes, TEXT, placeholder=placeholder, count=count)
                yield {
                    **kwargs,
                    "input_ids": ids,
                    **({"mm_token_type_ids": (ids == placeholder).long()} if typed else {}),
                }


def _refusal(model: nn.Module, kwargs: Mapping[str, Any]) -> str:
    """What a model says against its inputs; empty where it takes them."""
    try:
        with torch.no_grad():
            model(**kwargs)
    except Exception as error:  # whatever it is: the next candidate may do
        return " ".join(f"{type(error).__name__}: {error}".split())[:160]
    return ""

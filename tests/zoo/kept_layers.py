"""The settings of a configuration, and which of its layers a small one keeps: one of each kind."""

from collections.abc import Iterator
from dataclasses import MISSING
from dataclasses import fields as fields_of
from typing import Any

from zoo import setting_names as setting


def settings_of(config: Any) -> Iterator[tuple[str, Any]]:
    """What a configuration of this class can be made with, and its default values."""
    for one in fields_of(config):
        if one.init and not one.name.startswith("_") and one.name not in setting.LEFT_ALONE:
            yield one.name, value_of(config, one.name, one.default)


def value_of(config: Any, name: str, otherwise: Any = None) -> Any:
    """A setting; its default where each layer has its own."""
    try:
        return getattr(config, name)
    except (AttributeError, RuntimeError):
        return None if otherwise is MISSING else otherwise


def count_of_layers(config: Any) -> int | None:
    """How many layers lists of one entry per layer have; None where there are stages, or nothing says so."""
    if isinstance(value_of(config, "depths"), list | tuple):
        return None
    names = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth", "encoder_layers", "layers")
    counts = (value_of(config, name) for name in names)
    return next((count for count in counts if isinstance(count, int) and not isinstance(count, bool)), None)


def layers_to_keep(config: Any) -> list[int] | None:
    """The first layer of each kind, at least two and at most four; those of most indices where a list asks for some."""
    total = count_of_layers(config)
    if not total:
        return None
    lists = [value for _, value in settings_of(config) if isinstance(value, list | tuple) and len(value) == total]
    kinds = [tuple(str(value[index]) for value in lists) for index in range(total)]
    first = [index for index in range(total) if kinds[index] not in kinds[:index]][:4]
    asked = [
        len(value)
        for name, value in settings_of(config)
        if setting.BY_LAYER_INDEX.fullmatch(name) and isinstance(value, list | tuple) and len(value) < total
    ]
    wanted = min(total, max(2, *(min(count, 4) for count in asked), 0))
    others = [index for index in range(total) if index not in first]
    return sorted([*first, *others[: max(0, wanted - len(first))]])

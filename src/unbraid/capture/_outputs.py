"""The outputs of a model by name."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from unbraid.capture.signature import TensorSpec
from unbraid.capture.trees import parts_of
from unbraid.errors import TargetError


def output_stream(tree: Any, carried: Collection[str], name: str | int) -> str:
    """The stream of an output by its name in what the model returns; see `ResidualForm.explaining`.

    Args:
        tree: what the model returns, with streams for tensors.
        carried: the streams that carry data.
        name: the output's name.

    Raises:
        TargetError: there is no such output, or it carries no data.
    """
    named = dict(named_outputs(tree))
    data = {path: stream for path, stream in named.items() if stream in carried}
    if str(name) not in data:
        why = "carries no data from the inputs" if str(name) in named else "is none of this model's"
        known = ", ".join(map(repr, data)) if data.keys() - {""} else "one tensor, which has no name"
        raise TargetError(f"output: {name!r} {why}; there is {known}.")
    return data[str(name)]


def named_outputs(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every output tensor's path and stream."""
    if isinstance(tree, TensorSpec):
        yield path, tree.stream
        return
    for key, value in _children(tree):
        yield from named_outputs(value, f"{path}.{key}" if path else str(key))


def _children(tree: Any) -> list[tuple[object, Any]]:
    if isinstance(tree, Mapping):
        return list(tree.items())
    names = getattr(type(tree), "_fields", None)  # a named tuple is known by it
    if isinstance(tree, tuple) and names:
        return list(zip(names, tree, strict=True))
    if isinstance(tree, tuple | list):
        return list(enumerate(tree))
    if is_dataclass(tree):  # registered with torch or not
        return [(field.name, getattr(tree, field.name)) for field in fields(tree) if hasattr(tree, field.name)]
    return list((parts_of(tree) or {}).items())

"""The entries of a configuration that may count the layers of a list."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

from unbraid.pruning._surgery import Cut

KeyPath: TypeAlias = tuple[str | int, ...]  # where a value stands in the facts of a configuration


def trials(facts: Mapping[str, Any], cut: Cut) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Changed facts that may describe a list after the cut, and what was changed."""
    old, new = len(cut.names), len(cut.kept)
    counts = [path for path, value in _walk(facts) if type(value) is int and value == old]
    long = [path for path, value in lists(facts) if _length(value) == old]
    # The fewest lists first: one may be as long as the layers are many for reasons of its own.
    choices = [[], *([path] for path in long), *([long] if len(long) > 1 else [])]
    for chosen in choices:
        for count in [*counts, *([None] if chosen else [])]:
            if count is not None and count[:-1] in chosen:
                continue
            trial, said = copy.deepcopy(dict(facts)), list[str]()
            for path in chosen:
                _set_entry(trial, path, _thinned(_entry_at(facts, path), cut.kept))
                said.append(f"{_title(path)}: {new} of {old} entries")
            if count is not None:
                _set_entry(trial, count, new)
                said.append(f"{_title(count)}: {old} -> {new}")
            yield trial, said


def _walk(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every value in nested dicts and lists, with its path."""
    yield path, value
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        yield from _walk(item, (*path, key))


def lists(facts: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Sequence[Any]]]:
    """Lists that may hold one entry per layer; those inside other lists are entries themselves."""
    for path, value in _walk(facts):
        if isinstance(value, list | tuple) and not any(isinstance(step, int) for step in path):
            yield path, value


def _length(value: Sequence[Any]) -> int:
    """How many layers a list describes: one per entry, or a pattern repeated: [[["global", "local"], 6]]."""
    return sum(len(item) * times for item, times in value) if _patterned(value) else len(value)


def _thinned(value: Sequence[Any], kept: Sequence[int]) -> Sequence[Any]:
    if _patterned(value):
        entries = list(chain.from_iterable(item * times for item, times in value))
        return [[[entries[index] for index in kept], 1]]
    return [value[index] for index in kept]


def _patterned(value: Sequence[Any]) -> bool:
    return bool(value) and all(
        isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], list | tuple) and type(item[1]) is int
        for item in value
    )


def _entry_at(facts: Any, path: KeyPath) -> Any:
    for step in path:
        facts = facts[step]
    return facts


def _set_entry(facts: Any, path: KeyPath, value: Any) -> None:
    holder = _entry_at(facts, path[:-1])
    if isinstance(holder, tuple):
        above = _entry_at(facts, path[:-2])
        holder = above[path[-2]] = list(holder)
    holder[path[-1]] = value


def _title(path: KeyPath) -> str:
    return ".".join(map(str, path))

"""Models of transformers: a configuration that describes the smaller model, and a cache that serves it."""

import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from unbraid.prune._surgery import Cut

Place: TypeAlias = tuple[str | int, ...]  # where a value stands in the facts of a configuration
Difference: TypeAlias = frozenset[tuple[str, Any, Any]]


def is_pretrained(model: nn.Module) -> bool:
    """Whether a model is one of transformers, and so has a configuration; the library is not imported for this."""
    library = sys.modules.get("transformers")
    return library is not None and isinstance(model, library.PreTrainedModel)


def mend(model: Any, pruned: Any, cuts: Sequence[Cut]) -> tuple[str, ...]:
    """Give the pruned model a configuration from which its class would build it, in place.

    Which entries count the layers of a list is found by trial: among all numbers that equal the old length, those from
    which the model's own class builds (on the meta device) a model of the same names, shapes and attributes as the
    pruned one. Lists as long as the layers' lose the entries of the removed ones, in so far as this is needed for it.

    Args:
        model: the whole model.
        pruned: the model without some members.
        cuts: what was taken from which list.

    Returns:
        What was changed, one line an entry.

    Raises:
        ValueError: no change of the configuration describes the pruned model.
    """
    facts, changes = model.config.to_dict(), list[str]()
    usual = _difference(model, _built(model, facts))
    for number, cut in enumerate(cuts):
        open_still = [".".join(other.path) for other in cuts[number + 1 :]]
        for trial, said in _trials(facts, cut):
            twin = _try(model, trial)
            if twin is not None and _outside(_difference(pruned, twin), open_still) <= usual:
                facts, changes = trial, changes + said
                break
        else:
            raise ValueError(
                f"no entry of {type(model.config).__name__} that is {len(cut.names)} describes the "
                f"{len(cut.kept)} members left in {'.'.join(cut.path)}"
            )
    _adopt(pruned, _built(model, facts))
    return tuple(changes)


def cached_error(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
    """How far the last token's output moves when the tokens before it come from the key-value cache.

    nan where there is no such cache.
    """
    given = dict(kwargs)
    key = "decoder_input_ids" if isinstance(given.get("decoder_input_ids"), Tensor) else "input_ids"
    if key == "input_ids" and args and isinstance(args[0], Tensor):
        given[key] = args[0]
    ids = given.get(key)
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.shape[1] < 2:
        return float("nan")
    encoded = {name: given[name] for name in ("input_ids", "input_features", "attention_mask") if name in given}
    rest = encoded if key == "decoder_input_ids" else {}
    with torch.no_grad():
        before = model(**rest, **{key: ids[:, :-1]}, use_cache=True)
        cache = before.get("past_key_values")
        if cache is None:
            return float("nan")
        after = model(**rest, **{key: ids[:, -1:]}, past_key_values=cache, use_cache=True)[0][:, -1]
        whole = model(**rest, **{key: ids}, use_cache=False)[0][:, -1]
    return float((after - whole).abs().max() / whole.abs().max().clamp_min(torch.finfo(whole.dtype).tiny))


def uniform(model: Any) -> bool:
    """Whether no list of a configuration tells the layers apart, so that any slot of the cache serves any layer."""
    return all(len({str(item) for item in value}) <= 1 for _, value in _lists(model.config.to_dict()))


def _built(model: Any, facts: Mapping[str, Any]) -> Any:
    """What the model's class builds from these facts: structure alone, on the meta device."""
    config = type(model.config).from_dict(copy.deepcopy(dict(facts)))
    config._attn_implementation = model.config._attn_implementation
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return type(model)(config)


def _try(model: Any, facts: Mapping[str, Any]) -> Any:
    try:
        return _built(model, facts)
    except Exception:  # a number that counts something else makes the constructor raise whatever it likes
        return None


def _adopt(pruned: nn.Module, twin: nn.Module) -> None:
    """Hand on the configurations of the twin: of the model and of parts that have one of their own (T5's decoder)."""
    modules = dict(twin.named_modules())
    for name, module in pruned.named_modules():
        if name in modules and "config" in vars(module) and "config" in vars(modules[name]):
            vars(module)["config"] = vars(modules[name])["config"]


def _difference(model: nn.Module, twin: nn.Module) -> Difference:
    """The names, shapes and plain attributes in which two models differ."""
    a, b = _described(model), _described(twin)
    return frozenset(
        (name, str(a.get(name)), str(b.get(name))) for name in a.keys() | b.keys() if a.get(name) != b.get(name)
    )


def _described(model: nn.Module) -> dict[str, Any]:
    tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    facts: dict[str, Any] = {name: list(tensor.shape) for name, tensor in tensors}
    for name, module in model.named_modules(remove_duplicate=False):
        for key, value in vars(module).items():
            if key != "training" and isinstance(value, bool | int | float | str):
                facts[f"{name}.{key}"] = value
    return facts


def _outside(difference: Difference, lists: Sequence[str]) -> Difference:
    """What differs outside of some lists, which are looked at later."""
    return frozenset(item for item in difference if not any(item[0].startswith(f"{name}.") for name in lists))


def _trials(facts: Mapping[str, Any], cut: Cut) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Changed facts that may describe a list after the cut, and what was changed; most likely ones first."""
    old, new = len(cut.names), len(cut.kept)
    counts = [place for place, value in _walk(facts) if type(value) is int and value == old]
    lists = [place for place, value in _lists(facts) if _length(value) == old]
    choices = [lists, *([place] for place in lists if len(lists) > 1), *([[]] if lists else [])]
    for chosen in choices:
        for count in [*counts, None]:
            if count is None and not chosen:
                continue
            trial, said = copy.deepcopy(dict(facts)), list[str]()
            for place in chosen:
                _set(trial, place, _thinned(_get(facts, place), cut.kept))
                said.append(f"{_title(place)}: {new} of {old} entries")
            if count is not None:
                _set(trial, count, new)
                said.append(f"{_title(count)}: {old} -> {new}")
            yield trial, said


def _walk(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value in nested dicts and lists, with its place."""
    yield place, value
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        yield from _walk(item, (*place, key))


def _lists(facts: Mapping[str, Any]) -> Iterator[tuple[Place, Sequence[Any]]]:
    """Lists that may hold one entry a layer; those inside other lists are entries themselves."""
    for place, value in _walk(facts):
        if isinstance(value, list | tuple) and not any(isinstance(step, int) for step in place):
            yield place, value


def _length(value: Sequence[Any]) -> int:
    """How many layers a list describes: one an entry, or a pattern repeated: [[["global", "local"], 6]]."""
    return sum(len(item) * times for item, times in value) if _patterned(value) else len(value)


def _thinned(value: Sequence[Any], kept: Sequence[int]) -> Sequence[Any]:
    if _patterned(value):
        entries = [entry for item, times in value for _ in range(times) for entry in item]
        return [[[entries[place] for place in kept], 1]]
    return type(value)(value[place] for place in kept)


def _patterned(value: Sequence[Any]) -> bool:
    return bool(value) and all(
        isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], list | tuple) and type(item[1]) is int
        for item in value
    )


def _get(facts: Any, place: Place) -> Any:
    for step in place:
        facts = facts[step]
    return facts


def _set(facts: Any, place: Place, value: Any) -> None:
    holder = _get(facts, place[:-1])
    if isinstance(holder, tuple):
        above = _get(facts, place[:-2])
        holder = above[place[-2]] = list(holder)
    holder[place[-1]] = value


def _title(place: Place) -> str:
    return ".".join(map(str, place))

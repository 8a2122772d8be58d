"""Models of transformers: a configuration that describes the smaller model, and a cache that serves it.

The entry of the configuration that says how many layers there are is found by trial on the meta device: with the entry
changed, the class must build the same names and shapes as the pruned model has.
"""

import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from unbraid.capture import Draws, drawing, run_untouched
from unbraid.pruning._config_entries import lists, trials
from unbraid.pruning._model_calls import distance, outputs
from unbraid.pruning._surgery import Cut
from unbraid.results import tolerance

Difference: TypeAlias = frozenset[tuple[str, Any, Any]]


def is_pretrained(model: nn.Module) -> bool:
    """Whether a model is one of transformers, and so has a configuration; the library is not imported for this."""
    library = sys.modules.get("transformers")
    return library is not None and isinstance(model, library.PreTrainedModel)


def mend(
    model: Any, pruned: Any, cuts: Sequence[Cut], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[str, ...]:
    """Give the pruned model a configuration from which its class would build it, in place.

    Which entries count the layers of a list is found by trial: among all numbers that equal the old length, those from
    which the model's own class builds (on the meta device) a model of the same names, shapes and attributes as the
    pruned one. Lists as long as the layers' lose the entries of the removed ones, in so far as this is needed for it.
    Numbers such as a rate of stochastic depth may differ; where any do, the two models must still give one output.

    Args:
        model: the whole model.
        pruned: the model without some members.
        cuts: what was taken from which list.
        args: positional inputs at which the two may be compared.
        kwargs: keyword inputs.

    Returns:
        What was changed, one line per entry.

    Raises:
        ValueError: no change of the configuration describes the pruned model.
    """
    facts, changes = model.config.to_dict(), list[str]()
    first = _built(model, facts)
    usual = _difference(model, first)
    for number, cut in enumerate(cuts):
        open_still = [".".join(other.path) for other in cuts[number + 1 :]]
        for trial, said in _all_trials(model, facts, cut):
            twin = _try(model, trial)
            if twin is not None and _outside(_difference(pruned, twin), open_still) <= usual:
                facts, changes = trial, changes + said
                break
        else:
            raise ValueError(
                f"no entry of {type(model.config).__name__} that is {len(cut.names)} describes the "
                f"{len(cut.kept)} members left in {'.'.join(cut.path)}"
            )
    twin = _built(model, facts)
    _adopt(pruned, twin)
    if not _difference(pruned, twin, (float,)) <= _difference(model, first, (float,)):
        wanted = outputs(pruned, args, kwargs)
        error = distance(outputs(_filled(twin, pruned), args, kwargs), wanted)
        if not error <= tolerance("forward", wanted[0].dtype):
            raise ValueError(
                f"what {type(model).__name__} builds from its changed configuration has other constants, and with the "
                f"same parameters its outputs depart by {error:.1e}"
            )
    return tuple(changes)


def described(model: Any, pruned: Any) -> bool:
    """Whether the pruned model's class builds it from its configuration as well as it builds the whole model."""
    try:
        usual = _difference(model, _built(model, model.config.to_dict()))
        return _difference(pruned, _built(pruned, pruned.config.to_dict())) <= usual
    except Exception:  # whatever a constructor raises at numbers that do not fit
        return False


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
    encoded: dict[str, Any] = {
        name: given[name] for name in ("input_ids", "input_features", "attention_mask") if name in given
    }
    rest = encoded if key == "decoder_input_ids" else {}
    run = partial(run_untouched, model, (), draws=Draws.seeded(0))
    with torch.no_grad():
        before = run({**rest, key: ids[:, :-1], "use_cache": True})
        cache = before.get("past_key_values")
        if cache is None:
            return float("nan")
        after = run({**rest, key: ids[:, -1:], "past_key_values": cache, "use_cache": True})[0][:, -1]
        whole = run({**rest, key: ids, "use_cache": False})[0][:, -1]
    return float((after - whole).abs().max() / whole.abs().max().clamp_min(torch.finfo(whole.dtype).tiny))


def uniform(model: Any) -> bool:
    """Whether no list of a configuration tells the layers apart, so that any slot of the cache serves any layer."""
    return all(len(set(map(str, value))) <= 1 for _, value in lists(model.config.to_dict()))


def _all_trials(model: Any, facts: dict[str, Any], cut: Cut) -> Iterator[tuple[dict[str, Any], list[str]]]:
    yield from trials(facts, cut)
    # Entries that follow from others (the names of all stages, say) contradict a changed one: let them follow it.
    yield from trials(_independent(model, facts), cut)


def _independent(model: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts without those that the configuration computes from the others, or has by default."""
    kept = dict(facts)
    whole = type(model.config).from_dict(copy.deepcopy(facts)).to_dict()
    for key in facts:
        fewer = {name: value for name, value in kept.items() if name != key}
        try:
            same = type(model.config).from_dict(copy.deepcopy(fewer)).to_dict() == whole
        except Exception:  # it cannot do without
            same = False
        kept = fewer if same else kept
    return kept


def _built(model: Any, facts: Mapping[str, Any]) -> Any:
    """What the model's class builds from these facts: structure alone, on the meta device."""
    config = type(model.config).from_dict(copy.deepcopy(dict(facts)))
    config._attn_implementation = model.config._attn_implementation
    with drawing(Draws()), torch.device("meta"):
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


def _filled(twin: nn.Module, pruned: nn.Module) -> nn.Module:
    """The twin with the tensors of the pruned model, shared."""
    for name, module in pruned.named_modules(remove_duplicate=False):
        holder = twin.get_submodule(name)
        holder._parameters.update(module._parameters)
        holder._buffers.update(module._buffers)
    return twin.train(pruned.training)


def _difference(model: nn.Module, twin: nn.Module, kinds: tuple[type, ...] = (bool, int, str)) -> Difference:
    """The names and shapes of tensors, and the attributes of some types, in which two models differ."""
    a, b = _described(model, kinds), _described(twin, kinds)
    return frozenset(
        (name, str(a.get(name)), str(b.get(name))) for name in a.keys() | b.keys() if a.get(name) != b.get(name)
    )


def _described(model: nn.Module, kinds: tuple[type, ...]) -> dict[str, Any]:
    tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    facts: dict[str, Any] = {name: list(tensor.shape) for name, tensor in tensors}
    for name, module in model.named_modules(remove_duplicate=False):
        for key, value in vars(module).items():
            if key != "training" and type(value) in kinds:
                facts[f"{name}.{key}"] = value
    return facts


def _outside(difference: Difference, lists: Sequence[str]) -> Difference:
    """What differs outside of some lists, which are looked at later."""
    prefixes = tuple(f"{name}." for name in lists)
    return frozenset(item for item in difference if not item[0].startswith(prefixes))

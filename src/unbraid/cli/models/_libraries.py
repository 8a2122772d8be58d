"""Models of the libraries that unbraid knows by name. Each is imported only where it is used."""

import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module, util
from pathlib import Path
from typing import Any

from unbraid.cli.models._loaded import SEED, Loaded, Wish, normal, seeded
from unbraid.errors import UnbraidError

__all__ = ["LIBRARIES"]


def _package(name: str) -> Any:
    if util.find_spec(name) is None:
        raise UnbraidError(f"this MODEL needs the package {name}, which is missing: pip install {name}")
    try:
        return import_module(name)
    except Exception as error:  # a build for another torch fails in ways of its own
        raise UnbraidError(f"this MODEL needs the package {name}, which cannot be imported: {error}") from error


def _choose(kind: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        near = get_close_matches(name, known, n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f'{kind} has no model "{name}".{hint}')


def _timm(name: str, wish: Wish) -> Loaded:
    timm = _package("timm")
    _choose("timm", name, timm.list_models())
    model = seeded(lambda: timm.create_model(name, pretrained=wish.pretrained), wish.device)
    shape = wish.shape or (wish.examples, *model.pretrained_cfg["input_size"])
    python = f"model = timm.create_model({name!r}, pretrained={wish.pretrained}).eval()"
    return Loaded(f"timm:{name}", model.eval(), (normal(shape, wish.device),), python=python)


def _torchvision(name: str, wish: Wish) -> Loaded:
    models = _package("torchvision").models
    _choose("torchvision", name, models.list_models())
    weights = "DEFAULT" if wish.pretrained else None
    model = seeded(lambda: models.get_model(name, weights=weights), wish.device)
    side = 299 if name == "inception_v3" else 224
    shape = wish.shape or (wish.examples, 3, side, side)
    python = f"model = torchvision.models.get_model({name!r}, weights={weights!r}).eval()"
    return Loaded(f"torchvision:{name}", model.eval(), (normal(shape, wish.device),), python=python)


def _transformers(name: str, wish: Wish) -> Loaded:
    transformers = _package("transformers")
    place = Path(name)
    config = _config(transformers, place if place.suffix == ".json" else name)
    # A configuration, or a folder without weights, describes an architecture: it is traced with fresh ones.
    bare = wish.meta or place.suffix == ".json" or (place.is_dir() and not any(place.glob("*.safetensors")))
    family = _family(transformers, config)
    if bare:
        model = _call_library(name, lambda: seeded(lambda: _built(family, config), wish.device))
        call = f"{family.__name__}({type(config).__name__}.from_pretrained({name!r}))"
    else:
        model = _call_library(name, lambda: family.from_pretrained(name, use_safetensors=True, trust_remote_code=False))
        call = f"{family.__name__}.from_pretrained({name!r})"
    python = f"model = transformers.{call}.eval()"
    encode = None if place.suffix == ".json" else partial(_encode, transformers, name)
    return Loaded(f"hf:{name}", model.eval(), (), _call_library(name, lambda: _inputs_of(model, wish)), python, encode)


def _call_library(name: Path | str, make: Callable[[], Any]) -> Any:
    """What a library makes of a description; it raises whatever comes of a wrong one."""
    try:
        return make()
    except (UnbraidError, ValueError, OSError, MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise ValueError(f"transformers cannot make {name}: {type(error).__name__}: {error}") from error


def _encode(transformers: Any, name: str, text: str) -> Sequence[int]:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # missing, damaged, or of a kind that needs a further package
        raise UnbraidError(f"hf:{name} has no tokenizer that can be read: {str(error).splitlines()[0]}") from error
    encoded: Sequence[int] = tokenizer.encode(text, add_special_tokens=False)
    return encoded


def _config(transformers: Any, place: Path | str) -> Any:
    if not isinstance(place, Path):
        return _call_library(place, lambda: transformers.AutoConfig.from_pretrained(place, trust_remote_code=False))
    try:
        facts = json.loads(place.read_text(encoding="utf-8"))
        return transformers.AutoConfig.for_model(**facts)
    except OSError:
        raise
    except Exception as error:  # each family checks its own configuration in its own way
        raise ValueError(f"{place} is no configuration of transformers with a known model_type: {error}") from error


def _family(transformers: Any, config: Any) -> Any:
    """The class that the configuration names, with its head; else the bare model."""
    named = config.architectures[0] if isinstance(config.architectures, list) and config.architectures else None
    if "/" in str(config._attn_implementation):
        raise UnbraidError(
            f"the configuration asks for attention from {config._attn_implementation}: code from elsewhere."
        )
    try:
        # The name stands in a file: whatever else transformers holds under it is not called.
        family = getattr(transformers, str(named), None)
        known = isinstance(family, type) and issubclass(family, transformers.PreTrainedModel)
        return family if known else transformers.AutoModel
    except Exception as error:  # transformers imports a family when it is first asked for, and what that needs
        raise UnbraidError(f"transformers cannot import {named}: {str(error).splitlines()[0]}") from error


def _built(family: Any, config: Any) -> Any:
    return family.from_config(config, trust_remote_code=False) if "from_config" in dir(family) else family(config)


def _inputs_of(model: Any, wish: Wish) -> dict[str, Any]:
    import torch

    config = model.config.to_dict()
    if model.main_input_name == "pixel_values":
        side = int(config.get("image_size", 224))
        shape = wish.shape or (wish.examples, int(config.get("num_channels", 3)), side, side)
        return {"pixel_values": normal(shape, wish.device)}
    shape = wish.shape or (wish.examples, 16)
    ids = torch.randint(int(config["vocab_size"]), shape, generator=torch.Generator().manual_seed(SEED), device="cpu")
    ids = ids.to(wish.device)
    both = {"input_ids": ids, "decoder_input_ids": ids} if config.get("is_encoder_decoder") else {"input_ids": ids}
    return {**both, **({"use_cache": False} if "use_cache" in config else {})}


LIBRARIES: Mapping[str, Callable[[str, Wish], Loaded]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "hf": _transformers,
}

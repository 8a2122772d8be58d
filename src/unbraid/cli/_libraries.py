"""Models of the libraries that unbraid knows by name. Each is imported only where it is used."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module, util
from pathlib import Path
from typing import Any

from unbraid.cli._loaded import SEED, Loaded, Wish, normal, seeded
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
    model = seeded(lambda: timm.create_model(name, pretrained=wish.pretrained))
    shape = wish.shape or (wish.examples, *model.pretrained_cfg["input_size"])
    python = f"model = timm.create_model({name!r}, pretrained={wish.pretrained}).eval()"
    return Loaded(f"timm:{name}", model.eval(), (normal(shape),), python=python)


def _torchvision(name: str, wish: Wish) -> Loaded:
    models = _package("torchvision").models
    _choose("torchvision", name, models.list_models())
    weights = "DEFAULT" if wish.pretrained else None
    model = seeded(lambda: models.get_model(name, weights=weights))
    side = 299 if name == "inception_v3" else 224
    shape = wish.shape or (wish.examples, 3, side, side)
    python = f"model = torchvision.models.get_model({name!r}, weights={weights!r}).eval()"
    return Loaded(f"torchvision:{name}", model.eval(), (normal(shape),), python=python)


def _transformers(name: str, wish: Wish) -> Loaded:
    transformers = _package("transformers")
    place = str(Path(name).parent) if Path(name).name == "config.json" else name
    config = transformers.AutoConfig.from_pretrained(place)
    # A folder without weights describes an architecture: it is traced with fresh ones.
    bare = Path(place).is_dir() and not any(Path(place).glob("*.safetensors"))
    if bare:
        model = seeded(lambda: transformers.AutoModel.from_config(config))
    else:
        model = transformers.AutoModel.from_pretrained(place, use_safetensors=True)
    kwargs = _inputs_of(model, wish)
    call = (
        f"AutoModel.from_config(AutoConfig.from_pretrained({place!r}))"
        if bare
        else f"AutoModel.from_pretrained({place!r})"
    )
    return Loaded(f"hf:{name}", model.eval(), (), kwargs, f"model = transformers.{call}.eval()")


def _inputs_of(model: Any, wish: Wish) -> dict[str, Any]:
    import torch

    config = model.config.to_dict()
    if model.main_input_name == "pixel_values":
        side = int(config.get("image_size", 224))
        return {"pixel_values": normal(wish.shape or (wish.examples, int(config.get("num_channels", 3)), side, side))}
    shape = wish.shape or (wish.examples, 16)
    ids = torch.randint(int(config["vocab_size"]), shape, generator=torch.Generator().manual_seed(SEED))
    return {"input_ids": ids, **({"use_cache": False} if "use_cache" in config else {})}


LIBRARIES: Mapping[str, Callable[[str, Wish], Loaded]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "hf": _transformers,
}

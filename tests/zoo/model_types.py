"""Every model type of transformers that has a base model, small, with random weights and inputs that it takes."""

from typing import Any

import torch

from zoo.entry import Made, lively
from zoo.small_configs import MANNERS, Small
from zoo.small_inputs import fit
from zoo.type_exceptions import INPUTS, SETTINGS

LARGEST = 120e6  # parameters


def names() -> list[str]:
    """All model types that AutoModel knows, in transformers' own order."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return list(MODEL_MAPPING_NAMES)


def make(name: str) -> Made:
    """A small model of a type with inputs; the first manner of making it small that gives a model which runs.

    Raises:
        ValueError: none does; what each manner failed of.
    """
    said: dict[str, None] = {}
    for manner in MANNERS:
        try:
            model = _built(name, manner)
            return Made(model, (), fit(model, {key: value() for key, value in INPUTS.get(name, {}).items()}))
        except Exception as error:  # whatever it is: the next manner may do
            said[" ".join(f"{type(error).__name__}: {error}".split())[:600]] = None
    raise ValueError(" // ".join(said))


def _built(name: str, manner: str) -> Any:
    import transformers

    config = Small(manner, SETTINGS.get(name, {}))(transformers.CONFIG_MAPPING[name]())
    for nested in (config, *(getattr(config, key, None) for key in getattr(config, "sub_configs", {}))):
        if nested is not None:
            nested.dtype = torch.float32
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in transformers.AutoModel.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size / 1e6:.0f} M parameters")
    torch.manual_seed(0)
    return lively(transformers.AutoModel.from_config(config).float())

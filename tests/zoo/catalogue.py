"""All models of the zoo."""

from zoo import timm_models, transformers_models
from zoo.entry import Entry

MODELS: tuple[Entry, ...] = (*timm_models.MODELS, *transformers_models.MODELS)


def find(name: str) -> Entry:
    """The entry of a model."""
    return next(entry for entry in MODELS if entry.name == name)

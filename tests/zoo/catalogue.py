"""All models of the zoo."""

from zoo import more_models, skip_models, timm_models, transformers_models
from zoo.entry import Entry

MODELS: tuple[Entry, ...] = (*timm_models.MODELS, *transformers_models.MODELS)
# Those of other libraries, which live in an environment of their own.
MORE: tuple[Entry, ...] = (*more_models.MODELS, *skip_models.MODELS)


def find(name: str) -> Entry:
    """The entry of a model."""
    return next(entry for entry in (*MODELS, *MORE) if entry.name == name)

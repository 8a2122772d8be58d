"""What two studies ask of a network that reads MNIST-1D: by how much the right class stands out."""

from collections.abc import Callable
from functools import cache

from torch import Tensor

from unbraid import data, train


@cache
def mnist1d() -> data.Dataset:
    """Generated once."""
    return data.mnist1d().flat()


def recipe(epochs: int) -> train.Recipe:
    """AdamW along half a cosine."""
    return train.Recipe(epochs=epochs, optimizer="adamw", lr=3e-3, weight_decay=0.01, schedule="cosine")


def margin_of(labels: Tensor) -> Callable[[Tensor], Tensor]:
    """The score of the right class above the mean score, per example."""
    return lambda scores: scores.gather(1, labels[:, None])[:, 0] - scores.mean(1)

"""A network's architecture from its config."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import torch

from unbraid.nn._choice import choose, suggestion
from unbraid.nn._conv import conv1d, conv2d
from unbraid.nn._mlp import mlp
from unbraid.nn._network import PlainNetwork, ResidualNetwork
from unbraid.nn._transformer import transformer

__all__ = ["build"]

CONSTRUCTORS: dict[str, Callable[..., ResidualNetwork]] = {
    "mlp": mlp,
    "conv1d": conv1d,
    "conv2d": conv2d,
    "transformer": transformer,
}


def build(config: Mapping[str, Any], *, generator: torch.Generator | None = None) -> ResidualNetwork | PlainNetwork:
    """Make the network that a config describes; the inverse of a network's `config`.

    Args:
        config: `{"constructor": "mlp", "depth": 20, ...}`, the arguments of the constructor by name (those
            left out keep their defaults), `"plain": True` for the plain twin, and `"without": [3, 7]` for a network
            that lacks the branches of these blocks. It may come from JSON.
        generator: where the first weights come from, as for the constructor.

    Returns:
        A network with new weights.

    Raises:
        ValueError: the constructor is missing or unknown, or it has no argument of some name.
        IndexError: the network has no block that it is to lack.

    Examples:
        >>> network = mlp(depth=3)
        >>> build(network.config).config == network.config
        True
    """
    arguments = dict(config)
    if "constructor" not in arguments:
        raise ValueError(f'build: the config has no "constructor"; it has {", ".join(arguments) or "nothing"}')
    name = arguments.pop("constructor")
    plain, lacks = arguments.pop("plain", False), arguments.pop("without", [])
    constructor = choose("constructor", str(name), CONSTRUCTORS)
    known = [parameter for parameter in signature(constructor).parameters if parameter != "generator"]
    for argument in arguments:
        if argument not in known:
            raise ValueError(
                f'build: {name} has no argument "{argument}"\n'
                f"  It takes {', '.join(known)}.{suggestion(argument, known)}"
            )
    residual = constructor(**arguments, generator=generator)
    network = residual.plain() if plain else residual
    return network.without(*lacks) if lacks else network

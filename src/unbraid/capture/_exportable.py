"""A model as the exporter is shown it: a function of tensors that returns tensors and numbers.

What the model is really given and returns, keyword arguments, dataclasses, caches, is taken apart and put together on
this side (`_trees`), so that nothing depends on what torch knows of its classes or of the names of its arguments.
"""

import inspect
import keyword
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unbraid.capture.signature import positions
from unbraid.capture.trees import Structure, flatten, holds_tensors, titled
from unbraid.errors import TraceError

_INSIDE = "_unbraid_model"
_PREFIX = f"{_INSIDE}."


class Handed:
    """Calls a model with what it was given, tensors excepted, which are the arguments.

    Attributes:
        module: what to export.
        tensors: the arguments to call it with.
        names: of these.
        leaves: what the model was given, tensors among it.
        structure: how it is put together.
        returned: the leaves of what the model returned and their structure, once it has run.
    """

    def __init__(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.model = model
        self.leaves, self.structure = flatten((args, dict(kwargs)))
        self.tensors = tuple(leaf for leaf in self.leaves if isinstance(leaf, Tensor))
        self.names = titles(model, args, kwargs)
        self.returned: tuple[list[Any], Structure] | None = None
        self.module = nn.Module()  # which knows nothing of this object: the exporter puts a module's attributes back
        self.module._modules[_INSIDE] = model
        self.module.training = model.training
        self.module.__dict__["forward"] = self._signed()

    def _signed(self) -> Any:
        """The exporter names inputs after the parameters of `forward`."""

        def forward(*tensors: Any, **named: Any) -> tuple[Any, ...]:
            return self._call(*tensors, *named.values())

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(name, kind) for name in self.names]
        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return forward

    def _call(self, *tensors: Any) -> tuple[Any, ...]:
        given = iter(tensors)
        filled = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        args, kwargs = self.structure.filled(iter(filled))
        leaves, structure = flatten(self.model(*args, **kwargs))
        for leaf in leaves:
            if not isinstance(leaf, Tensor) and holds_tensors(leaf):
                raise TraceError(
                    f"{type(self.model).__name__} returns a {type(leaf).__name__} of tensors, which has no order. "
                    "Return a list, a dict or a dataclass."
                )
        self.returned = leaves, structure
        return tuple(leaf for leaf in leaves if computed(leaf))


def computed(leaf: Any) -> bool:
    """Whether a leaf of what a model returns is computed: a tensor, or a number that depends on sizes."""
    return isinstance(leaf, Tensor | torch.SymInt | torch.SymFloat | torch.SymBool)


def titles(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """A name for each input tensor: its argument's, and its place therein."""
    names = dict[str, None]()
    for title, value in [*zip(positions(model, args)[1], args, strict=True), *kwargs.items()]:
        for name, leaf in zip(titled(value, title), flatten(value)[0], strict=True):
            if isinstance(leaf, Tensor):
                names[_identifier(name, names)] = None
    return list(names)


def own(name: str) -> str:
    """The name that a parameter, a buffer or a module has in the model itself."""
    return name.removeprefix(_PREFIX) if name != _INSIDE else ""


def own_stack(stack: Mapping[str, tuple[str, Any]]) -> dict[str, tuple[str, Any]]:
    """The modules of the model that were running, without the one around it."""
    return {key: (own(path), kind) for key, (path, kind) in stack.items() if path}


def _identifier(title: str, taken: Mapping[str, None]) -> str:
    name = re.sub(r"\W", "_", title, flags=re.ASCII)
    name = f"_{name}" if keyword.iskeyword(name) or not name.isidentifier() else name
    while name in taken:
        name += "_"
    return name

"""What a MODEL argument may be, and how each kind is loaded, with inputs to trace it on."""

import math
from collections.abc import Callable, Mapping
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbraid.cli._console import tell
from unbraid.cli.models._libraries import LIBRARIES
from unbraid.cli.models._loaded import Loaded, Wish, normal, seeded
from unbraid.cli.models._weights import load_weights
from unbraid.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from unbraid.train import Run

__all__ = ["KINDS", "Loaded", "Wish", "explain", "load", "parse_shape"]

KINDS: Mapping[str, str] = {
    "FOLDER": "a folder made by `unbraid train`, such as runs/mlp20",
    "FILE.py:FACTORY": "a function in a Python file, which is run: it returns a module, or a pair (module, inputs)",
    "timm:NAME": "a model of timm, such as timm:resnet50",
    "torchvision:NAME": "a model of torchvision, such as torchvision:resnet18",
    "hf:NAME_OR_FOLDER": "a model of transformers: a name on the hub, a folder, or a config.json",
}


_MOST_NUMBERS = 2**32  # of an input: 16 GiB, above which nothing could be traced anyway


def explain() -> str:
    """All kinds of MODEL, one per line."""
    width = max(map(len, KINDS))
    return "\n".join(["MODEL may be", *(f"  {kind.ljust(width)}  {text}" for kind, text in KINDS.items())])


def load(spec: str, wish: Wish, weights: Path | None = None) -> Loaded:
    """The model that a MODEL argument names.

    Args:
        spec: one of `KINDS`.
        wish: the input's shape, the batch size, trained weights, or the structure alone.
        weights: a file of weights to load into the model.

    Raises:
        ValueError: there is no such model, or its inputs are not known.
        UnbraidError: a package is missing, or the folder or the file holds no checkpoint.
    """
    loaded = _named(spec, wish)
    if weights is not None:
        load_weights(loaded.model, weights)
    return loaded


def _named(spec: str, wish: Wish) -> Loaded:
    prefix, colon, rest = spec.partition(":")
    if colon and prefix in LIBRARIES:
        if not rest:
            raise ValueError(f'"{spec}" names no model; write {prefix}:NAME.')
        return LIBRARIES[prefix](rest, wish)
    if ".py:" in spec or spec.endswith(".py"):
        return _from_file(spec, wish)
    if Path(spec).is_dir():
        return _from_folder(spec, wish)
    raise ValueError(f'"{spec}" is no model: there is no such folder, and it does not read {_others()}.')


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """Sizes such as "1,3,224,224" as a tuple; ValueError for what is not a list of positive sizes."""
    if text is None:
        return None
    sizes = [size.strip() for size in text.split(",")]
    if not all(size.isdecimal() and len(size) <= 12 and int(size) > 0 for size in sizes):
        raise ValueError(f'a shape is sizes with commas between, such as 1,3,224,224; got "{text}".')
    shape = tuple(map(int, sizes))
    if math.prod(shape) > _MOST_NUMBERS:
        raise ValueError(f"an input of {math.prod(shape):,} numbers is refused; {_MOST_NUMBERS:,} are allowed.")
    return shape


def _others() -> str:
    return " or ".join(kind for kind in KINDS if kind != "FOLDER")


def _from_folder(spec: str, wish: Wish) -> Loaded:
    from unbraid import train

    run = train.load(spec)
    python = f"model = train.load({spec!r}).network"
    inputs = normal(wish.shape) if wish.shape is not None else _inputs_of(spec, run, wish)
    return Loaded(spec, run.network, (inputs,), python=python)


def _inputs_of(spec: str, run: "Run", wish: Wish) -> "Tensor":
    """Examples of --data, else of what a run was trained on; where that is gone, random numbers of the same sizes."""
    from unbraid import data

    if wish.data is not None:
        dataset = data.by_name(wish.data)
        try:
            dataset = dataset.flat() if run.features is None else dataset.shaped(*run.features)
        except ValueError:  # they do not fit, which is said where they are used
            dataset = dataset.flat()
        return dataset.test.inputs[: wish.examples]
    try:
        return run.dataset().test.inputs[: wish.examples]
    except DataError as error:
        if run.features is None or wish.labels:
            raise
        tell(f"unbraid: traced on random numbers. {error}")
        return normal((wish.examples, *run.features))


def _from_file(spec: str, wish: Wish) -> Loaded:
    from torch import nn

    path, colon, name = spec.rpartition(":")
    if not colon or not name.isidentifier() or not path.endswith(".py"):
        raise ValueError(f'"{spec}" does not say which function builds the model; write FILE.py:FACTORY.')
    if not Path(path).is_file():
        raise FileNotFoundError(f'no such file: "{path}"')
    returned = seeded(lambda: _called(path, name), wish.device)
    model, inputs = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{spec} must return a torch.nn.Module, or (module, inputs); got {type(model).__name__}.")
    if inputs is None and wish.shape is None:
        raise ValueError(f"{spec} gives no inputs: return (module, inputs), or give --input-shape 1,3,224,224.")
    args = (normal(wish.shape, wish.device),) if wish.shape is not None else inputs
    args = args if isinstance(args, tuple) else (args,)
    return Loaded(spec, model.eval(), args, python=f"model = {name}()")


def _called(path: str, name: str) -> Any:
    factory = _factory(path, name)
    try:
        return factory()
    except Exception as error:  # the user's code, whatever it raises
        raise ValueError(f"{name} in {path} cannot be called: {type(error).__name__}: {error}") from error


def _factory(path: str, name: str) -> Callable[[], Any]:
    spec = util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    if not callable(vars(module).get(name)):
        raise ValueError(f'{path} has no function "{name}".')
    factory: Callable[[], Any] = vars(module)[name]
    return factory

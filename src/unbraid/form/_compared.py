"""A form and its model, run from one random state, and how far apart their outputs lie.

The reference is the model itself, of which nothing changes; where it is not at hand, its graph before the cut.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from unbraid.capture import Draws, Run, drawing, plain_checkpoints, runs
from unbraid.capture.trees import leaves_of
from unbraid.errors import InexactError, TraceError, UnbraidError
from unbraid.form._core import Form
from unbraid.form._origin import Origin
from unbraid.graph import runnable
from unbraid.results import relative_error
from unbraid.walk import run

Seen: TypeAlias = Callable[[str, Any], None]  # is shown a stream and its value


def at_hand(origin: Origin, reference: Run, args: tuple[Any, ...], kwargs: Mapping[str, Any], draws: Draws) -> Any:
    """The model at an input that somebody gave."""
    try:
        return reference(args, kwargs, draws)
    except UnbraidError:
        raise
    except Exception as error:
        name = "The saved model" if origin.model is None else type(origin.model).__name__
        raise TraceError(
            f"{name}: the model itself raises {type(error).__name__} at this input, run without gradients: {error}"
        ) from error


def distance(form: Form, reference: Run, args: tuple[Any, ...], kwargs: dict[str, Any], seen: Seen) -> float:
    """Form against model from one random state; `seen` is shown the form's streams."""
    return apart(*both(form, reference, args, kwargs, seen))


def both(
    form: Form, reference: Run, args: tuple[Any, ...], kwargs: dict[str, Any], seen: Seen | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs of the form and of the model from one random state."""
    draws = Draws()
    with torch.no_grad():
        there = comparable(reference(args, kwargs, draws))
        try:
            with drawing(draws.again()):
                here = form(*args, **kwargs) if seen is None else _shown(form, args, kwargs, seen)
        except UnbraidError:
            raise
        except Exception as error:
            other = "export" if form.tracer == "dispatch" else "dispatch"
            raise InexactError(
                "The form must follow the model, which runs at this input; the form raises "
                f"{type(error).__name__} there: {error}\n  Try tracer={other!r}.",
                where="the output",
                error=math.inf,
            ) from error
    return comparable(here), there


def _shown(form: Form, args: tuple[Any, ...], kwargs: dict[str, Any], seen: Seen) -> Any:
    """What the form returns; its streams are shown on the way."""
    return form.signature.result(run(form.graph, form.state, form.inputs(args, kwargs), seen=seen))


def comparable(result: Any) -> list[Tensor]:
    """Tensors, and numbers as such."""
    leaves = [
        torch.tensor(leaf, device="cpu") if isinstance(leaf, bool | int | float) else leaf for leaf in leaves_of(result)
    ]
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def apart(here: list[Tensor], there: list[Tensor]) -> float:
    """The largest error of any output; other sizes and types are no rounding."""
    kinds = [list(map(_kind, tensors)) for tensors in (here, there)]
    if kinds[0] != kinds[1]:
        pairs = enumerate(zip_longest(*kinds, fillvalue="nothing"))
        number, (ours, models) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
        raise InexactError(
            f"The form must give tensors of the model's sizes and types; output {number} is {ours} in the form, and "
            f"{models} in the model.",
            where="the output",
            error=math.inf,
        )
    return max(map(relative_error, here, there), default=0.0)


def _kind(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


@contextmanager
def reference_runs(
    form: Form, origin: Origin, args: tuple[Any, ...], kwargs: dict[str, Any], *, graded: bool = False
) -> Iterator[Run]:
    """Runs of the model itself, of which nothing changes; else of its graph before the cut."""
    if origin.model is None:
        wanted = set(form.signature.streams())
        yield lambda args, kwargs, draws: form.signature.result(
            uncut(form, origin, form.inputs(args, dict(kwargs)), wanted, draws)
        )
        return
    with (
        plain_checkpoints(),
        runs(origin.model, args, kwargs, graded=graded) as model,
    ):  # without gradients they would warn
        yield lambda args, kwargs, draws: model(args, form.signature.completed(args, kwargs), draws)


def uncut(
    form: Form, origin: Origin, inputs: Mapping[str, Any], wanted: set[str], draws: Draws | None = None
) -> dict[str, Tensor]:
    """Run the captured graph as it was before the cut, and keep some of its values."""
    values: dict[str, Tensor] = {}

    class Watch(fx.Interpreter):
        def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
            # A parameter is read when an operator asks for it: with weights in files, all at once may not fit.
            return map_arg((n.args, n.kwargs), self._fetched)

        def _fetched(self, n: fx.Node) -> Any:
            return form.state[origin.names[n.name]] if n.name in origin.names else self.env[n]

        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.name in wanted:
                values[n.name] = value
            return value

    placeholders = [node.name for node in origin.graph.nodes if node.op == "placeholder"]
    feed = [None if name in origin.names else inputs[name] for name in placeholders]
    with torch.no_grad(), drawing(draws or Draws()):
        Watch(runnable(origin.graph)).run(*feed)
    return values

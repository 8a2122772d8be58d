"""Whether there is anything to compute with: on the meta device tensors have sizes, and no values."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unbraid.errors import DataError, TraceError
from unbraid.graph.state import State, Streamed


def refuse_empty_weights(state: State) -> None:
    """Refuse a form whose weights have no values.

    Raises:
        TraceError: it says where they come from.
    """
    if on_meta(state):
        raise TraceError(
            "The form was traced on the meta device and has no weights, so that there is nothing to compute with. Give "
            "it some, form.with_weights(FOLDER), first."
        )


def refuse_empty_inputs(inputs: Mapping[str, Any]) -> None:
    """Refuse inputs that have no values.

    Raises:
        DataError: it names one.
    """
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.is_meta:
            raise DataError(f"The form's input {name!r} lies on the meta device and has no values. Give a real tensor.")


def on_meta(state: State) -> bool:
    """Whether some of a state has no values; what is read from files has."""
    return not isinstance(state, Streamed) and any(tensor.is_meta for tensor in state.values())

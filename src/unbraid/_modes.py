"""Torch's modes that a caller has switched on, left while unbraid works.

Analyses differentiate what they are given, a stack of cotangents at a time. Under `torch.inference_mode` nothing can be
differentiated, and anomaly detection reads values, which a stack of cotangents does not let it do; under
`torch.device("meta")` a model's own code makes tensors without values. So what a user calls leaves these, and comes
back into them at the end. Without gradients, and under autocast, the model may well be another: there it stays.

unbraid's own tensors are made on devices that it names, so that a default device means the model's code alone.

A tensor that was made in inference mode stays unfit for autograd wherever it goes. Its memory is fit: `ordinary` gives
another tensor that shows it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from threading import Lock
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from unbraid.errors import DataError

P = ParamSpec("P")
R = TypeVar("R")

_UNFIT = "Inference tensors cannot be saved for backward"


class _Anomalies:
    """Anomaly detection, a flag of the whole process: off while any thread works here, then as it was."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._before = (False, True)

    @contextmanager
    def undetected(self) -> Iterator[None]:
        """Leave it, unless it is off."""
        with self._lock:
            inside = self._inside > 0 or torch.is_anomaly_enabled()
            if inside and not self._inside:
                self._before = (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled())
                torch.set_anomaly_enabled(False)
            self._inside += inside
        try:
            yield
        finally:
            with self._lock:
                self._inside -= inside
                if inside and not self._inside:
                    torch.set_anomaly_enabled(*self._before)


_ANOMALIES = _Anomalies()


@contextmanager
def left() -> Iterator[None]:
    """Inside, autograd works as it does where no mode was switched on; gradients are on or off as they were."""
    inference = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
    with _ANOMALIES.undetected(), inference:
        yield


@contextmanager
def off_meta(*tensors: Tensor) -> Iterator[None]:
    """Inside `torch.device("meta")`: make tensors where they have values, unless one of these lies there as well."""
    empty = torch.get_default_device().type == "meta" and not any(tensor.is_meta for tensor in tensors)
    with torch.device("cpu") if empty else nullcontext():
        yield


def outside_modes(function: Callable[P, R]) -> Callable[P, R]:
    """For what a user calls: it leaves inference mode, anomaly detection and the meta device while it works."""
    inner = outside_autograd_modes(function)

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with off_meta():
            return inner(*args, **kwargs)

    return called


def outside_autograd_modes(function: Callable[P, R]) -> Callable[P, R]:
    """The same for what may well trace a model on the meta device."""

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with left():
            try:
                return function(*args, **kwargs)
            except RuntimeError as error:
                if _UNFIT not in str(error):
                    raise
                raise DataError(
                    f"{function.__name__}: what is differentiated holds a tensor made in torch.inference_mode, for "
                    "which there is no gradient. Use its clone, in a metric, loss or target of your own, say, or make "
                    "it under torch.no_grad."
                ) from error

    return called


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor itself, or, if it was made in inference mode, another one on the same memory that autograd takes."""
    if not tensor.is_inference():
        return tensor
    with left(), torch.no_grad():
        if tensor.layout is not torch.strided or type(tensor) not in (Tensor, nn.Parameter, nn.Buffer):
            normal_tensor = tensor.clone()
        else:
            place = (tensor.storage_offset(), tensor.size(), tensor.stride())
            normal_tensor = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(
                tensor.untyped_storage(), *place
            )
    return nn.Parameter(normal_tensor, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else normal_tensor

"""What must hold of labelled arrays. Each message states the rule, what arrived, and what to do."""

import numpy as np
import numpy.typing as npt

from unbraid.errors import DataError

__all__ = ["check_inputs", "check_labels", "check_pair"]

Array = npt.NDArray[np.generic]


def check_pair(name: str, x_key: str, x: Array, y_key: str, y: Array) -> None:
    """Inputs [examples, *features] and labels [examples] of one length, above 0; else DataError."""
    if x.ndim < 2:
        raise DataError(
            f"{name}: {x_key} must be [examples, *features]; it is {list(x.shape)}. "
            "Inputs of one number each are [examples, 1]."
        )
    if y.ndim != 1:
        advice = " One-hot labels become classes by argmax(axis=1)." if y.ndim == 2 else ""
        raise DataError(f"{name}: {y_key} must be [examples], one label each; it is {list(y.shape)}.{advice}")
    if len(x) != len(y):
        raise DataError(
            f"{name}: {x_key} and {y_key} must have one length; "
            f"{x_key} holds {len(x):,} examples and {y_key} {len(y):,} labels"
        )
    if x.size == 0:
        raise DataError(f"{name}: a part must hold examples with features; {x_key} is empty: {list(x.shape)}")


def check_inputs(name: str, key: str, x: Array) -> None:
    """Real numbers, all finite; else DataError with the first bad row."""
    if x.dtype.kind not in "fiub":
        raise DataError(f"{name}: {key} must hold real numbers; its type is {x.dtype}")
    if x.dtype.kind != "f":
        return
    # Row by row, so that no second array of the size of the data is needed to find the first bad one.
    for row, values in enumerate(x):
        if not np.isfinite(values).all():
            place = np.argwhere(~np.isfinite(values))[0]
            what = _not_finite(np.asarray(values)[tuple(place)])
            raise DataError(
                f"{name}: {key} must be finite; row {row} holds {what} at {place.tolist()}. "
                "Remove such rows, or fill in what is missing."
            )


def check_labels(name: str, key: str, y: Array, classes: int | None = None) -> None:
    """Whole numbers from 0 to classes − 1 (without an upper end where `classes` is None); else DataError."""
    if y.dtype.kind not in "fiub":
        raise DataError(f"{name}: {key} must hold whole numbers; its type is {y.dtype}. Number the classes from 0.")
    if y.dtype.kind == "f":
        _refuse(name, key, y, ~np.isfinite(y), "labels must be finite")
        # Tools that know one type only save labels as 3.0: the value counts.
        _refuse(name, key, y, y != np.floor(y), "labels must be whole numbers")
    _refuse(name, key, y, np.less(y, 0), "labels count the classes from 0")
    # Without a count, the bound only keeps the conversion to int64 from wrapping round.
    limit, bound = (2**31, "2^31") if classes is None else (classes, f"the number of classes, {classes}")
    _refuse(name, key, y, np.greater_equal(y, limit), f"labels must be below {bound}")


def _refuse(name: str, key: str, y: Array, bad: npt.NDArray[np.bool_], rule: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        what = _not_finite(y[row]) if y.dtype.kind == "f" and not np.isfinite(y[row]) else y[row].item()
        raise DataError(f"{name}: {rule}; {key} holds {what} in row {row} ({int(bad.sum())} such of {len(y):,})")


def _not_finite(value: np.generic) -> str:
    return "NaN" if np.isnan(value) else "infinity"

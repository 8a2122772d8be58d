"""Arrays of one's own -> a data set: split, checked, standardised."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from unbraid.data._check import check_inputs, check_labels, check_pair
from unbraid.data._dataset import Dataset
from unbraid.errors import DataError

__all__ = ["Over", "from_arrays"]

Array = npt.NDArray[np.generic]
Over = Literal["all", "channel", "feature", "nothing"]


def from_arrays(
    x: Array,
    y: Array,
    x_test: Array | None = None,
    y_test: Array | None = None,
    *,
    name: str = "arrays",
    classes: int | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    over: Over = "all",
) -> Dataset:
    """Check labelled arrays and standardise them on their training part.

    Args:
        x: inputs [examples, *features] of real numbers, all finite.
        y: labels [examples], whole numbers counted from 0.
        x_test: inputs to test on. Without it and `y_test`, `test_fraction` of the examples are set apart.
        y_test: their labels.
        name: what reports, checkpoints and error messages call the data.
        classes: how many classes there are; by default the largest label of `y` plus 1.
        test_fraction: the share to set apart, drawn without regard to the label. Used only without `x_test`.
        seed: of the generator that draws that share: equal seeds give equal parts, on any machine.
        over: what shares one mean and one standard deviation: "all" features (signals, grey images), each
            "channel" (the first feature dimension: colour images), each "feature" (table columns in units
            of their own), or "nothing" (the values are used as they are).

    Returns:
        The data set, inputs in float32 and labels in int64. A feature that does not vary becomes 0.

    Raises:
        DataError: where lengths or shapes differ, a value is not finite, a label is no class or a part empty.
    """
    if (x_test is None) != (y_test is None):
        given, missing = ("x_test", "y_test") if y_test is None else ("y_test", "x_test")
        raise DataError(
            f"{name}: x_test and y_test come together; there is {given} but no {missing}. "
            f"Add {missing}, or leave out {given} to have a share of x and y set apart."
        )
    inputs, labels = _examples(name, "x", x, "y", y)
    if x_test is not None and y_test is not None:
        test_inputs, test_labels = _examples(name, "x_test", x_test, "y_test", y_test)
        if inputs.shape[1:] != test_inputs.shape[1:]:
            raise DataError(
                f"{name}: one example must have one shape; "
                f"in x it is {list(inputs.shape[1:])}, in x_test {list(test_inputs.shape[1:])}"
            )
    count = _classes(name, labels, classes)
    check_labels(name, "y", labels, count)
    if x_test is None:
        train, test = _split(name, len(labels), test_fraction, seed)
        inputs, test_inputs, labels, test_labels = inputs[train], inputs[test], labels[train], labels[test]
    check_labels(name, "y_test", test_labels, count)
    mean, std = _moments(inputs, over)
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise DataError(f"{name}: the values of x are too large to standardise: their variance overflows float64")
    return Dataset(
        name=name,
        train_inputs=torch.from_numpy(((inputs - mean) / std).astype(np.float32)),
        train_labels=torch.from_numpy(labels),
        test_inputs=torch.from_numpy(((test_inputs - mean) / std).astype(np.float32)),
        test_labels=torch.from_numpy(test_labels),
        classes=count,
        mean=torch.from_numpy(mean),
        std=torch.from_numpy(std),
    )


def _examples(
    name: str, x_key: str, x: Array, y_key: str, y: Array
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    check_pair(name, x_key, x, y_key, y)
    check_inputs(name, x_key, x)
    check_labels(name, y_key, y)
    return x.astype(np.float64), y.astype(np.int64)


def _classes(name: str, labels: npt.NDArray[np.int64], classes: int | None) -> int:
    if classes is not None:
        return classes
    count = int(labels.max()) + 1
    # A stray label such as 1,000,000,007 would otherwise ask the network for a head of that many outputs.
    if count > len(labels):
        raise DataError(
            f"{name}: labels must count the classes from 0; the largest of {len(labels):,} labels in y is "
            f"{count - 1:,}. Number the classes without gaps, or say how many there are: classes={count}."
        )
    return count


def _split(
    name: str, examples: int, test_fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is a share between 0 and 1, both excluded; got {test_fraction}")
    tests = round(examples * test_fraction)
    if not 0 < tests < examples:
        raise DataError(
            f"{name}: both parts must hold examples; {test_fraction:g} of {examples} examples is {tests}. "
            "Give more examples, or x_test and y_test."
        )
    order = torch.randperm(examples, generator=torch.Generator().manual_seed(seed), device="cpu").numpy()
    return order[tests:], order[:tests]


def _moments(inputs: npt.NDArray[np.float64], over: Over) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of the training inputs; they broadcast against one input."""
    if over == "nothing":
        return np.zeros(()), np.ones(())
    axes = {"all": range(inputs.ndim), "feature": (0,), "channel": (0, *range(2, inputs.ndim))}
    if over not in axes:
        raise ValueError(f'over is "all", "channel", "feature" or "nothing"; got {over!r}')
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is reported by the caller, as an error
        mean = np.asarray(inputs.mean(axis=tuple(axes[over]), keepdims=True))
        std = np.asarray(inputs.std(axis=tuple(axes[over]), keepdims=True))
    shape = () if over == "all" else mean.shape[1:]
    mean, std = mean.reshape(shape), std.reshape(shape)
    # The mean of a constant feature is rounded, so its deviation may come out as 1e-17 rather than 0.
    constant = std <= 1e-12 * np.abs(mean)
    return mean, np.where(constant, 1.0, std)

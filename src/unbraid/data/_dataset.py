"""A data set of labelled examples, its two parts, and the batches of a part."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

__all__ = ["Batches", "Dataset", "Examples", "batches"]


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs and the label of each: one part of a data set.

    Attributes:
        inputs: what the network sees, one example per row.
        labels: the class of each example, counted from 0.
    """

    inputs: Float32[Tensor, "examples *features"]
    labels: Int64[Tensor, " examples"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled examples for training and for testing, standardised as (x − mean) / std.

    `mean` and `std` are those of the training part alone, so that the test part tells nothing about itself.
    They broadcast against one input: their shape is [] where one number serves all features, as on signals
    and images, whose features share a unit; `from_arrays` offers other choices. Where the training values do
    not vary, std is 1.

    Attributes:
        name: what reports and checkpoints call it.
        train_inputs: the standardised inputs to train on.
        train_labels: their classes, counted from 0.
        test_inputs: the standardised inputs to test on.
        test_labels: their classes.
        classes: how many classes there are.
        mean: what was subtracted, in the unit of the raw inputs.
        std: what the rest was divided by, in the same unit.
        names: what the classes are called, where that is known.
        path: the file or folder that it was read from, from the root; None where it was not.
    """

    name: str
    train_inputs: Float32[Tensor, "train *features"]
    train_labels: Int64[Tensor, " train"]
    test_inputs: Float32[Tensor, "test *features"]
    test_labels: Int64[Tensor, " test"]
    classes: int
    mean: Float[Tensor, "..."]
    std: Float[Tensor, "..."]
    names: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def train(self) -> Examples:
        """The part to train on."""
        return Examples(self.train_inputs, self.train_labels)

    @property
    def test(self) -> Examples:
        """The part to test on."""
        return Examples(self.test_inputs, self.test_labels)

    @property
    def features(self) -> tuple[int, ...]:
        """The shape of one input: (40,) for MNIST-1D, (1, 8, 8) for the digits."""
        return tuple(self.train_inputs.shape[1:])

    def flat(self) -> "Dataset":
        """The same examples with each input as one vector, for fully connected networks."""
        return self.shaped(-1)

    def shaped(self, *features: int) -> "Dataset":
        """The same examples with each input in another shape, one size of which may be −1: what is left.

            data.mnist1d().shaped(1, -1)  # one channel, for conv1d
            data.mnist1d().shaped(-1, 4)  # 10 positions of 4 features, for transformer
            data.digits().shaped(8, 8)  # 8 rows, for transformer

        Raises:
            ValueError: an input has another number of features.
        """
        try:
            train_inputs = self.train_inputs.reshape(len(self.train_labels), *features)
        except RuntimeError as error:
            raise ValueError(f"{self.name}: inputs of {list(self.features)} have no shape {list(features)}") from error
        shape = train_inputs.shape[1:]
        return replace(
            self,
            train_inputs=train_inputs,
            test_inputs=self.test_inputs.reshape(len(self.test_labels), *shape),
            # One number for all features stays one number; anything else is spelled out for each feature.
            mean=self.mean if self.mean.ndim == 0 else self.mean.expand(self.features).reshape(shape),
            std=self.std if self.std.ndim == 0 else self.std.expand(self.features).reshape(shape),
        )

    def to(self, device: torch.device | str) -> "Dataset":
        """The same examples with their inputs and labels on `device`."""
        return replace(
            self,
            train_inputs=self.train_inputs.to(device),
            train_labels=self.train_labels.to(device),
            test_inputs=self.test_inputs.to(device),
            test_labels=self.test_labels.to(device),
        )

    def __repr__(self) -> str:
        shape = "x".join(str(size) for size in self.features)
        return (
            f"Dataset({self.name!r}: {len(self.train_labels):,} to train on, "
            f"{len(self.test_labels):,} to test on, inputs of {shape}, {self.classes} classes)"
        )


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of some examples: iterate as often as needed, each pass yields (inputs, labels) pairs.

    Attributes:
        examples: what is cut into batches.
        size: examples in a batch; the last of a pass may hold fewer.
        generator: shuffles anew before each pass; None keeps the order.
    """

    examples: Examples
    size: int
    generator: torch.Generator | None = None

    def __len__(self) -> int:
        return -(-len(self.examples) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, labels = self.examples.inputs, self.examples.labels
        if self.generator is not None:
            # One gather for the whole pass, then views: cheaper than a gather for each batch. The order is
            # drawn on the generator's own device, so that a seed means the same order on every device.
            order = torch.randperm(len(labels), generator=self.generator, device=self.generator.device)
            inputs, labels = inputs[order.to(inputs.device)], labels[order.to(labels.device)]
        yield from zip(torch.split(inputs, self.size), torch.split(labels, self.size), strict=True)


def batches(examples: Examples, size: int, *, generator: torch.Generator | None = None) -> Batches:
    """Cut examples into batches of `size`, in order, or shuffled anew on each pass by `generator`.

        for inputs, labels in batches(data.train, 100, generator=torch.Generator().manual_seed(0)):

    Raises:
        ValueError: where `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"batches: a batch holds at least 1 example; size is {size}")
    return Batches(examples, size, generator)

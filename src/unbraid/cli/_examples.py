"""The examples on which a model is looked at, for `report`."""

from dataclasses import dataclass
from typing import Any

import torch

from unbraid.cli._pruned import Task
from unbraid.cli.models._loaded import Loaded
from unbraid.data import tokens
from unbraid.errors import DataError

__all__ = ["ExamplesOf", "examples_of"]

_BATCH, _ROWS, _POSITIONS = 64, 4, 64  # rows of tokens in a batch: their outputs are positions × vocabulary numbers


@dataclass(frozen=True)
class ExamplesOf:
    """Batches of examples, and in words where they are from.

    Attributes:
        batches: pairs of inputs and labels; labels None where none are known.
        said: a sentence on them.
    """

    batches: list[tuple[Any, Any]]
    said: str


def examples_of(spec: str, loaded: Loaded, data: str | None, count: int) -> ExamplesOf:
    """Examples of --data, or of what a model was trained on here, or the inputs that a model is traced on.

    Raises:
        ValueError: the model takes other inputs than the data.
        DataError: the file cannot be read.
    """
    if data is not None and "input_ids" in loaded.kwargs:
        return _language(loaded, data, count)
    task = Task.of(spec, loaded, data)
    if task.data is None:
        given = dict(loaded.kwargs) if loaded.kwargs else loaded.args
        return ExamplesOf([(given, None)], "Looked at on random inputs, as no data was named (--data).")
    test = task.data.test
    inputs, labels = test.inputs[:count].to(loaded.args[0].dtype), test.labels[:count]
    batches = list(zip(torch.split(inputs, _BATCH), torch.split(labels, _BATCH), strict=True))
    return ExamplesOf(batches, f"Looked at on {len(labels):,} examples of the test part of {task.data.name}.")


def _language(loaded: Loaded, data: str, count: int) -> ExamplesOf:
    inputs, labels = tokens(data, _POSITIONS, encode=loaded.encode)
    inputs, labels = inputs[:count], labels[:count]
    config: Any = loaded.model.config  # of transformers
    vocabulary = int(config.vocab_size)
    largest = int(torch.maximum(inputs.max(), labels.max()))
    if largest >= vocabulary:
        raise DataError(f"{data}: {loaded.name} knows tokens below {vocabulary}; the largest is {largest}")
    if "decoder_input_ids" in loaded.kwargs:
        raise ValueError(f"{loaded.name} is an encoder and a decoder; --data gives the tokens of one stream.")
    rest = {name: value for name, value in loaded.kwargs.items() if name != "input_ids"}
    batches: list[tuple[Any, Any]] = [
        ({"input_ids": ids, **rest}, after)
        for ids, after in zip(torch.split(inputs, _ROWS), torch.split(labels, _ROWS), strict=True)
    ]
    said = f"Looked at on {len(inputs):,} pieces of {_POSITIONS} tokens of {data}; the loss is that of the next token."
    return ExamplesOf(batches, said)

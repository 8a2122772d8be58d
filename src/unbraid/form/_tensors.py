"""Tensors in safetensors files, read one at a time at their place in the file.

The library's own reader maps whole files into memory: what was looked at counts as resident, and a limit on address
space below the file's size makes it fail.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unbraid.errors import CheckpointError

_LONGEST = 100_000_000  # bytes of a header, as in the safetensors library
_TYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}


@dataclass(frozen=True)
class Stored:
    """One tensor of a file.

    Attributes:
        path: the file.
        name: the tensor's name in it.
        shape: its sizes.
        dtype: its element type there.
        offset: where its bytes begin, from the beginning of the file.
        stamp: size and time of the file when its header was read.
        wanted: the type in which to hand it out.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    stamp: tuple[int, int]
    wanted: torch.dtype

    @property
    def like(self) -> Tensor:
        """A tensor of its sizes and type, without memory."""
        return torch.empty(self.shape, dtype=self.wanted, device="meta")

    def read(self) -> Tensor:
        """The tensor.

        Raises:
            CheckpointError: the file is gone, or has changed since its header was read.
        """
        tensor = torch.empty(self.shape, dtype=self.dtype)
        try:
            with self.path.open("rb", buffering=0) as file:
                if _stamp(file) != self.stamp:
                    raise CheckpointError(
                        f"load: {self.path} has changed since {self.name!r} was found in it. Load the form again."
                    )
                file.seek(self.offset)
                _fill(tensor, file)
        except OSError as error:
            raise CheckpointError(f"load: {self.path} cannot be read for {self.name!r}: {error}") from error
        return tensor.to(self.wanted)


def stored(path: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file, by its header alone.

    Raises:
        CheckpointError: the file is missing, cut short, or its header is no header.
    """
    try:
        with path.open("rb", buffering=0) as file:
            stamp = _stamp(file)
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(_LONGEST, stamp[0] - 8):
                raise CheckpointError(f"load: {path} is no readable safetensors file: it has no whole header.")
            facts = json.loads(file.read(length))
    except OSError as error:
        raise CheckpointError(f"load: {path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"load: {path} is no readable safetensors file: its header is no JSON.") from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"load: {path} is no readable safetensors file: its header is no JSON object.")
    found = {
        name: _entry(path, name, fact, 8 + length, stamp) for name, fact in facts.items() if name != "__metadata__"
    }
    promised = max((entry.offset + _volume(entry) for entry in found.values()), default=8 + length)
    if promised != stamp[0]:
        raise CheckpointError(
            f"load: {path} is {'cut short' if promised > stamp[0] else 'too long'}: its header describes {promised} "
            f"bytes, and it has {stamp[0]}. Copy it again."
        )
    return found


def given_as(entry: Stored, dtype: torch.dtype) -> Stored:
    """The same tensor handed out in another type, as `load_state_dict` would convert it."""
    return replace(entry, wanted=dtype)


def _entry(path: Path, name: str, fact: Any, start: int, stamp: tuple[int, int]) -> Stored:
    fact = fact if isinstance(fact, Mapping) else {}
    shape, offsets, dtype = fact.get("shape"), fact.get("data_offsets"), _TYPES.get(str(fact.get("dtype")))
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2 or dtype is None:
        raise CheckpointError(f"load: {path} describes {name!r} as {str(fact)[:80]}, which is no tensor known here.")
    entry = Stored(path, name, tuple(shape), dtype, start + offsets[0], stamp, dtype)
    if offsets[1] - offsets[0] != _volume(entry):
        raise CheckpointError(
            f"load: {path} gives {name!r} {offsets[1] - offsets[0]} bytes; {shape} of {dtype} take {_volume(entry)}."
        )
    return entry


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _volume(entry: Stored) -> int:
    return math.prod(entry.shape) * entry.dtype.itemsize


def _stamp(file: FileIO) -> tuple[int, int]:
    facts = os.fstat(file.fileno())
    return facts.st_size, facts.st_mtime_ns


def _fill(tensor: Tensor, file: FileIO) -> None:
    if not tensor.numel():
        return
    waiting = tensor.reshape(-1).view(torch.uint8).numpy().data
    while waiting:
        count = file.readinto(waiting)  # of two GB at most at a time
        if not count:
            raise OSError("it ends too early")
        waiting = waiting[count:]

"""Tensors in safetensors files, read one at a time at their place in the file.

The library's own reader maps whole files into memory: what was looked at counts as resident, a limit on address space
below the file's size makes it fail, and a file that another process cuts short ends the process. Its tensors also begin
wherever the file has them, at any multiple of 8 bytes, and there the kernels of some products (a row times a matrix)
round otherwise than at the multiples of 64 where torch puts tensors of its own. What is read here lies like what was
written (`layout`).
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unbraid._openfile import OpenFile
from unbraid.errors import CheckpointError
from unbraid.saved._layout import PLAIN, Layout

_LONGEST = 100_000_000  # bytes of a header, as in the safetensors library
_SHORTEST = 40  # bytes of a header that one tensor takes at least
_TYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
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
        file: the file, held open.
        name: the tensor's name in it.
        shape: its sizes.
        dtype: its element type there.
        offset: where its bytes begin, from the beginning of the file.
        wanted: the type in which to hand it out.
        layout: how it is to lie in memory.
    """

    file: OpenFile
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    wanted: torch.dtype
    layout: Layout = PLAIN

    @property
    def path(self) -> Path:
        """Where the file was found."""
        return self.file.path

    @property
    def meta_tensor(self) -> Tensor:
        """A tensor of its sizes and type, without memory."""
        return torch.empty(self.shape, dtype=self.wanted, device="meta")

    @property
    def nbytes(self) -> int:
        """Its bytes in the file."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> Tensor:
        """The tensor.

        Raises:
            CheckpointError: the file has changed since its header was read, or there is no memory for the tensor.
        """
        try:
            tensor = torch.empty(self.shape, dtype=self.dtype, device="cpu")
            if not self.file.unchanged:
                raise CheckpointError(
                    f"load: {self.path} has changed since {self.name!r} was found in it. Load the form again."
                )
            if tensor.numel():
                self.file.fill(tensor.reshape(-1).view(torch.uint8).numpy().data, self.offset)
            return self.layout.applied(tensor.to(self.wanted))
        except OSError as error:
            raise CheckpointError(f"load: {self.path} cannot be read for {self.name!r}: {error}") from error
        except (RuntimeError, MemoryError) as error:  # torch's allocator raises the former
            raise CheckpointError(
                f"load: {self.name!r} in {self.path}, {list(self.shape)} of {self.dtype}, cannot be made: "
                f"{next(iter(str(error).splitlines()), 'no memory')}"
            ) from error


def stored(file: OpenFile | Path) -> dict[str, Stored]:
    """The tensors of a safetensors file, by its header alone.

    Raises:
        CheckpointError: the file is missing, cut short, or its header is no header: tensors must fill the file one
            behind the other, so that what they take together is what it holds.
    """
    try:
        file = file if isinstance(file, OpenFile) else OpenFile(file)
        start, facts = _header(file)
    except OSError as error:
        path = file.path if isinstance(file, OpenFile) else file
        raise CheckpointError(f"load: {path} cannot be read: {error}") from error
    entries = {name: _entry(file, name, fact, start) for name, fact in facts.items() if name != "__metadata__"}
    end = start
    for entry in sorted(entries.values(), key=lambda entry: (entry.offset, entry.nbytes)):
        if entry.offset != end:
            raise CheckpointError(
                f"load: {file.path} has {'a gap before' if entry.offset > end else 'two tensors in the place of'} "
                f"{entry.name!r}, which begins at byte {entry.offset}, and {end} comes next. Write it again."
            )
        end += entry.nbytes
    if end != file.size:
        raise CheckpointError(
            f"load: {file.path} is {'cut short' if end > file.size else 'too long'}: its header describes {end} "
            f"bytes, and it has {file.size}. Copy it again."
        )
    return entries


def read_tensors(file: OpenFile | Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, in memory.

    Raises:
        CheckpointError: as `stored`, or there is no memory for them.
    """
    return {name: entry.read() for name, entry in stored(file).items()}


def given_as(entry: Stored, dtype: torch.dtype) -> Stored:
    """The same tensor handed out in another type, as `load_state_dict` would convert it."""
    return replace(entry, wanted=dtype)


def _header(file: OpenFile) -> tuple[int, Mapping[str, Any]]:
    """Where the header ends, and what it says."""
    if file.size < 8:
        raise _unreadable(file, "it has no whole header")
    count = bytearray(8)
    file.fill(memoryview(count), 0)
    length = int.from_bytes(count, "little")
    if not 0 < length <= min(_LONGEST, file.size - 8):
        raise _unreadable(file, "it has no whole header")
    text = bytearray(length)
    file.fill(memoryview(text), 8)
    if text.count(b"{") > 2 + length // _SHORTEST or text.count(b"[") > 2 * (2 + length // _SHORTEST):
        raise _unreadable(file, "its header is no header: it holds more objects than its length has room for")
    try:
        facts = json.loads(text.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError, MemoryError) as error:
        said = str(error) if isinstance(error, _TwiceError) else "its header is no JSON"
        raise _unreadable(file, said) from error
    if not isinstance(facts, dict):
        raise _unreadable(file, "its header is no JSON object")
    return 8 + length, facts


class _TwiceError(ValueError):
    """Two entries of one name: which of them counts, readers do not agree on."""


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    once: dict[str, Any] = {}
    for name, value in pairs:
        if name in once:
            raise _TwiceError(f"its header has {name[:80]!r} twice")
        once[name] = value
    return once


def _entry(file: OpenFile, name: str, fact: Any, start: int) -> Stored:
    fact = fact if isinstance(fact, Mapping) else {}
    shape, offsets, dtype = fact.get("shape"), fact.get("data_offsets"), _TYPES.get(str(fact.get("dtype")))
    if (
        not (_sizes(shape) and _sizes(offsets) and len(offsets) == 2 and name.isprintable())
        or dtype is None
        or not _countable(shape, dtype)
    ):
        raise CheckpointError(
            f"load: {file.path} describes {name[:80]!r} as {str(fact)[:80]!r}, which is no tensor known here."
        )
    entry = Stored(file, name, tuple(shape), dtype, start + offsets[0], dtype)
    if offsets[1] - offsets[0] != entry.nbytes:
        raise CheckpointError(
            f"load: {file.path} gives {name!r} {offsets[1] - offsets[0]} bytes; {str(shape)[:80]} of {dtype} take "
            f"{entry.nbytes if entry.nbytes < 2**63 else 'more than any file has'}."
        )
    return entry


def _countable(shape: list[int], dtype: torch.dtype) -> bool:
    """Whether torch can count so many bytes, the zeros among the sizes left out, as it does for strides."""
    return math.prod(max(size, 1) for size in shape) * dtype.itemsize < 2**63


def _sizes(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) <= 64 and all(type(size) is int and 0 <= size < 2**63 for size in value)
    )


def _unreadable(file: OpenFile, why: str) -> CheckpointError:
    return CheckpointError(f"load: {file.path} is no readable safetensors file: {why}.")

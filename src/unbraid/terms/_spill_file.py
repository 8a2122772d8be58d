"""Tensors put aside in a private temporary file until they are needed."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, final

import torch
from torch import Tensor

_IN_MEMORY = 1 << 20  # bytes before the file is a real one


@final
class SpillFile:
    """Tensors that wait in a private temporary file, without a name, and are read back one at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[str, tuple[int, Tensor]] = {}

    @staticmethod
    @contextmanager
    def opened() -> Iterator["SpillFile"]:
        """An empty one; the file goes when it is closed."""
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
            yield SpillFile(file)

    def put(self, name: str, tensor: Tensor) -> None:
        """Write a tensor down."""
        like = torch.empty_like(tensor, device="meta", memory_format=torch.contiguous_format)
        self._places[name] = (self._file.seek(0, 2), like)
        self._file.write(_bytes(tensor.detach().cpu().contiguous()))

    def take(self, name: str, device: torch.device) -> Tensor:
        """Read one back."""
        offset, like = self._places[name]
        self._file.seek(offset)
        tensor = torch.empty_like(like, device="cpu")
        _bytes(tensor)[:] = self._file.read(tensor.nbytes)
        return tensor.to(device)


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data

"""torch's own files of weights, checked before torch reads them: an archive, or, before 2020, pickles and numbers."""

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbraid._openfile import OpenFile
from unbraid.cli.models._pickled import MoreThanTensorsError, Storage, described
from unbraid.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["read_torch_file"]

_LONGEST = 2**26  # bytes of the pickles: 300,000 tensors
_HEADER = 30  # bytes of what precedes a member, without its name and further fields


def read_torch_file(path: Path) -> "dict[str, Tensor]":
    """What `torch.load(weights_only=True)` reads, after a look at what it would be asked to do.

    Raises:
        CheckpointError: the file is damaged, holds more than tensors, or asks for more memory than it has bytes.
    """
    import torch

    try:
        file = OpenFile(path)
        if file.head(4) == b"PK\x03\x04":  # how torch tells one from the other
            _check_archive(file)
        else:
            _check_pickles(file)
        with file.stream() as stream:
            state: Any = torch.load(stream, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except MoreThanTensorsError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, {error}, and reading it could run code: it was not read. "
            "Save the state dict alone, or as .safetensors."
        ) from error
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise CheckpointError(f"{path} cannot be read: {type(error).__name__} {error}".strip()) from error
    named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{path} must hold a state dict: names and tensors. It holds a {type(state).__name__}.")
    return dict(state)


def _check_archive(file: OpenFile) -> None:
    """Each member once, uncompressed and in a place of its own; each storage as long as its member."""
    with file.stream() as stream, zipfile.ZipFile(stream) as archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        size = sum(info.file_size for info in infos)
        packed = next((info for info in infos if info.compress_type != zipfile.ZIP_STORED), None)
        if size > file.size or packed is not None:
            raise CheckpointError(f"{file.path} has {file.size:,} bytes and unpacks to {size:,}: it was not read.")
        ends = [info.header_offset for info in infos[1:]] + [archive.start_dir]
        for info, end in zip(infos, ends, strict=True):
            begin = bytearray(_HEADER)
            file.fill(memoryview(begin), info.header_offset)
            fields = int.from_bytes(begin[26:28], "little") + int.from_bytes(begin[28:30], "little")
            if info.header_offset + _HEADER + fields + info.file_size > end:
                raise CheckpointError(f"{file.path} is damaged: {info.filename!r} reaches over what follows it.")
        names = [info.filename.partition("/")[2] for info in infos]
        if infos[0].header_offset or len(set(names)) < len(names) or "data.pkl" not in names:
            raise CheckpointError(f"{file.path} is no file of torch's: one archive with each name once, and data.pkl.")
        members = dict(zip(names, infos, strict=True))
        if members["data.pkl"].file_size > _LONGEST:
            raise CheckpointError(f"{file.path} describes its tensors in more than {_LONGEST:,} bytes.")
        description = described(archive.read(members["data.pkl"]))
    for storage in description.storages.values():
        member = members.get(f"data/{storage.key}")
        if member is None or member.file_size != storage.nbytes:
            raise _misfit(file, storage, 0 if member is None else member.file_size)


def _check_pickles(file: OpenFile) -> None:
    """Five pickles: a number, a version, the machine, the state dict, the names of its storages. Then these."""
    head = io.BytesIO(file.head(min(file.size, _LONGEST)))
    start, pickles = 0, []
    for _ in range(5):
        pickles.append(described(head.getbuffer()[start:].tobytes()))
        start += pickles[-1].length
    storages, keys = pickles[3].storages, pickles[4].value
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise CheckpointError(f"{file.path} is damaged: it names other storages than its tensors need.")
    need = sum(8 + storage.nbytes for storage in storages.values())  # each after its length
    if start + need != file.size:
        largest = max(storages.values(), key=lambda storage: storage.nbytes, default=Storage("", 1, 0))
        raise _misfit(file, largest, file.size - start)


def _misfit(file: OpenFile, storage: Storage, there: int) -> CheckpointError:
    return CheckpointError(
        f"{file.path} is damaged: its tensors need {storage.nbytes:,} bytes of {storage.key[:40]!r}, and {there:,} are "
        "there. It was not read."
    )

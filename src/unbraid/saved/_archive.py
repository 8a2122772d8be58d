"""A saved graph made harmless before torch.export reads it.

`torch.export.load` trusts its file: it unpickles, loads native libraries, evaluates sizes as Python and imports modules
by name. So it never sees the file, but an archive made afresh around its checked description of the graph, in which
every operator and size is known; a list of what is forbidden would be one torch version behind.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import PurePosixPath as Path
from typing import Any

from unbraid.errors import CheckpointError
from unbraid.saved._description import checked

__all__ = ["harmless"]

_MODEL = "models/model.json"
_TENSORS = {
    "data/weights/weight_": "data/weights/model_weights_config.json",
    "data/constants/tensor_": "data/constants/model_constants_config.json",
}
# torch's own marks on the archive: short words and numbers.
_MARKS = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")
_KNOWN = {_MODEL, *_TENSORS.values(), *_MARKS}
_CONTENT = re.compile(r"data/(weights/weight|constants/tensor)_\d+")  # of tensors; it is not looked at
_EMPTY = {
    "requires_grad": False,
    "device": {"type": "cpu", "index": None},
    "sizes": [{"as_int": 0}],
    "strides": [{"as_int": 1}],
    "storage_offset": {"as_int": 0},
    "layout": 7,  # strided
}


def harmless(data: bytes) -> bytes:
    """The archive of a saved graph, made anew from what in it is known and checked.

    Tensors are named there and hold nothing: a form's weights stand in a file of their own.

    Raises:
        CheckpointError: something in it would be run, unpickled, imported or unpacked to more than its own size.
        Exception: whatever a damaged archive brings the readers of zip and JSON to.
    """
    members = _members(data)
    model = checked(json.loads(members[_MODEL]))
    contents = {_MODEL: json.dumps(model)}
    for prefix, name in _TENSORS.items():
        tensors = _without_content(name, json.loads(members[name])["config"], Path(prefix).name)
        contents[name] = json.dumps({"config": tensors})
        contents |= {f"{Path(prefix).parent}/{tensor['path_name']}": "" for tensor in tensors.values()}
    contents |= {name: members[name].decode("ascii") for name in _MARKS if name in members and len(members[name]) <= 64}
    contents["data/sample_inputs/model.pt"] = ""
    contents.setdefault(".data/version", "3")  # of torch's archives, without which its reader begins no file
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, text in contents.items():
            file.writestr(f"archive/{name}", text)
    return archive.getvalue()


def _members(data: bytes) -> dict[str, bytes]:
    """The content of each known member, by its name below the archive's one folder."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        names = [info.filename.partition("/")[2] for info in infos]
        if len({info.filename.partition("/")[0] for info in infos}) > 1 or len(set(names)) < len(names):
            raise CheckpointError("load: the graph's archive has one folder and each name once; this one has not.")
        for info, name in zip(infos, names, strict=True):
            if name == "data/sample_inputs/model.pt" and not info.file_size:
                continue
            if name not in _KNOWN and not _CONTENT.fullmatch(name):
                raise CheckpointError(
                    f"load: the graph's archive holds {name!r}, which no saved form has and which could run code when "
                    "read. It was not read."
                )
            if info.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(f"load: {name} in the graph is compressed, and unbraid never compresses it.")
        return {name: archive.read(info) for info, name in zip(infos, names, strict=True)}


def _without_content(place: str, config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Name and type of each tensor of the state, nothing of its content."""
    tensors = {}
    for name, entry in config.items():
        if entry["use_pickle"] is not False or not entry["path_name"].startswith(("weight_", "tensor_")):
            raise CheckpointError(f"load: {place} in the graph asks for unpickling, which could run code. It was not.")
        dtype = int(entry["tensor_meta"]["dtype"])
        tensors[name] = {
            "path_name": f"{prefix}{dtype}",
            "is_param": entry["is_param"] is True,
            "use_pickle": False,
            "tensor_meta": {"dtype": dtype, **_EMPTY},
        }
    return tensors

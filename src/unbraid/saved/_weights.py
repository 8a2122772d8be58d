"""From a folder of safetensors to the state of a form: which file holds which tensor, and whether they fit.

A form with the weights of a folder has its model as a reference no more: `verify` compares it with the captured graph
before the cut.
"""

import json
from collections.abc import Collection, Iterable
from pathlib import Path

from torch import Tensor

from unbraid._folder import Generation
from unbraid._openfile import OpenFile
from unbraid.errors import CheckpointError
from unbraid.graph.state import State, Streamed, meta_tensor
from unbraid.saved._read import in_one_generation, weights_of
from unbraid.saved._tensors import Stored, given_as, stored


def tensors_in(folder: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file, or of a folder of them, sharded ones by their index, or of a saved form.

    Raises:
        CheckpointError: there is none, one is damaged, or the index and the files disagree.
    """
    if folder.is_file():
        return stored(folder)
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) > 1:
        raise CheckpointError(f"load: {folder} has {len(indices)} indices of shards, {_named(indices)}; keep one.")
    if indices:
        return _indexed(indices[0])
    return in_one_generation(folder, _in_generation)


def _in_generation(generation: Generation) -> dict[str, Stored]:
    """Of a saved form the weights that it names, of another folder those of all files; checked where checksums are."""
    files = weights_of(generation) or _files(generation)
    if not files:
        raise CheckpointError(
            f"load: {generation.folder} holds no .safetensors file. Weights are read from these alone; pickled ones "
            "(.bin, .pt) could run code: convert them, with model.save_pretrained(FOLDER) say."
        )
    entries: dict[str, Stored] = {}
    for file in files:
        for name, entry in stored(file).items():
            if name in entries:
                raise CheckpointError(
                    f"load: {name!r} is in two files, {entries[name].path.name} and {file.path.name}, and no index "
                    "says which counts. Keep one of them."
                )
            entries[name] = entry
    return entries


def _files(generation: Generation) -> list[OpenFile]:
    listed = sorted(name for name in generation.sums or {} if name.endswith(".safetensors"))
    names = listed or sorted(path.name for path in generation.folder.glob("*.safetensors"))
    return [generation.open(name) if listed else OpenFile(generation.folder / name) for name in names]


def state_from(
    folder: Path, state: State, tied: Iterable[tuple[str, ...]] = (), computed: Collection[str] = ()
) -> Streamed:
    """The state of a form with its parameters and persistent buffers in files.

    What no file holds is kept: buffers that the model computes, such as the frequencies of rotary positions, and
    constants. Tied parameters are one tensor, whichever of their names the files have.

    Args:
        folder: a .safetensors file, or a folder of them.
        state: what the form has now.
        tied: groups of names of one tensor.
        computed: the buffers that the model computes, which no file holds.

    Raises:
        CheckpointError: a tensor is missing, or has other sizes; or a computed buffer has no values.
    """
    entries = tensors_in(folder)
    aliases = dict[str, tuple[str, ...]]()
    for group in tied:
        aliases |= {name: (name, *group) for name in group}
    places, kept, problems = dict[str, Stored](), dict[str, Tensor](), list[str]()
    for name in state:
        wanted = meta_tensor(state, name)
        entry = next((entries[other] for other in aliases.get(name, (name,)) if other in entries), None)
        if entry is not None and entry.shape == tuple(wanted.shape):
            places[name] = given_as(entry, wanted.dtype)
        elif entry is not None:
            problems.append(
                f"{entry.path.name} has {entry.name!r} of sizes {list(entry.shape)}, the form {list(wanted.shape)}"
            )
        elif name not in computed:
            problems.append(f"no file has {name!r}")
        elif wanted.is_meta:
            problems.append(
                f"{name!r} is computed by the model, is in no file, and was made on the meta device; make the model "
                "within unbraid.empty_weights(), which keeps such buffers"
            )
        else:
            kept[name] = wanted
    if problems:
        more = f"\n  and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError("\n  ".join([f"load: {folder} does not fit the form:", *problems[:3]]) + more)
    return Streamed(places, kept)


def _indexed(index: Path) -> dict[str, Stored]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        pairs = [(str(name), str(file)) for name, file in places.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"load: {index} is no index of shards, a JSON object with a weight_map.") from error
    if outside := [file for _, file in pairs if Path(file).name != file or file in {"", ".."} or "\0" in file]:
        raise CheckpointError(f"load: {index} names the shard {outside[0]!r}, which is no file of its own folder.")
    names = dict.fromkeys(file for _, file in pairs)
    shards = {file: stored(index.with_name(file)) for file in names}
    for name, file in pairs:
        if name not in shards[file]:
            others = [other for other in shards if name in shards[other]]
            where = f" It is in {others[0]}: two shards were swapped." if others else ""
            raise CheckpointError(f"load: {file} lacks {name!r}, which {index.name} places there.{where}")
    return {name: shards[file][name] for name, file in pairs}


def _named(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)

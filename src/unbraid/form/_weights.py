"""From a folder of safetensors to the state of a form: which file holds which tensor, and whether they fit."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unbraid._folder import Generation
from unbraid._openfile import OpenFile
from unbraid.errors import CheckpointError
from unbraid.form._store import in_one_generation, weights_of
from unbraid.form._tensors import Stored, given_as, stored
from unbraid.walk import Streamed, like

if TYPE_CHECKING:
    from unbraid.form._form import ResidualForm


def found_in(folder: Path) -> dict[str, Stored]:
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
    found: dict[str, Stored] = {}
    for file in files:
        for name, entry in stored(file).items():
            if name in found:
                raise CheckpointError(
                    f"load: {name!r} is in two files, {found[name].path.name} and {file.path.name}, and no index says "
                    "which counts. Keep one of them."
                )
            found[name] = entry
    return found


def _files(generation: Generation) -> list[OpenFile]:
    listed = sorted(name for name in generation.sums or {} if name.endswith(".safetensors"))
    names = listed or sorted(path.name for path in generation.folder.glob("*.safetensors"))
    return [generation.open(name) if listed else OpenFile(generation.folder / name) for name in names]


def state_from(form: "ResidualForm", folder: Path) -> Streamed:
    """The state of a form with its parameters and persistent buffers in files.

    What no file holds is kept: buffers that the model computes, such as the frequencies of rotary positions, and
    constants. Tied parameters are one tensor, whichever of their names the files have.

    Raises:
        CheckpointError: a tensor is missing, or has other sizes; or a computed buffer has no values.
    """
    found = found_in(folder)
    origin = form.origin
    aliases = {name: (name, *group) for group in (origin.tied if origin else ()) for name in group}
    computed = origin.computed if origin else frozenset()
    places, kept, problems = dict[str, Stored](), dict[str, Tensor](), list[str]()
    for name in form.state:
        wanted = like(form.state, name)
        entry = next((found[other] for other in aliases.get(name, (name,)) if other in found), None)
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


def load_into(form: "ResidualForm", folder: Path, *, stream: bool, device: torch.device) -> "ResidualForm":
    """See `ResidualForm.load`."""
    state = state_from(form, folder)
    # The model has not these weights: from here on the captured graph before the cut is what the form is checked with.
    origin = None if form.origin is None else replace(form.origin, model=None)
    loaded = replace(form, state=state, origin=origin, error=float("nan"), silent=()).to(device)
    return loaded if stream else replace(loaded, state={name: loaded.state[name] for name in loaded.state})


def tied(model: nn.Module | None) -> tuple[tuple[str, ...], ...]:
    """Groups of names of one tensor."""
    groups: dict[int, list[str]] = {}
    for name, tensor in tensors_of(model) if model is not None else ():
        groups.setdefault(id(tensor), []).append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def tensors_of(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers under all their names."""
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]


def _indexed(index: Path) -> dict[str, Stored]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        pairs = [(str(name), str(file)) for name, file in places.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"load: {index} is no index of shards, a JSON object with a weight_map.") from error
    if outside := [file for _, file in pairs if Path(file).name != file or file in {"", ".."} or "\0" in file]:
        raise CheckpointError(f"load: {index} names the shard {outside[0]!r}, which is no file of its own folder.")
    shards = {file: stored(index.with_name(file)) for file in dict.fromkeys(file for _, file in pairs)}
    for name, file in pairs:
        if name not in shards[file]:
            where = next(
                (f" It is in {other}: two shards were swapped." for other in shards if name in shards[other]), ""
            )
            raise CheckpointError(f"load: {file} lacks {name!r}, which {index.name} places there.{where}")
    return {name: shards[file][name] for name, file in pairs}


def _named(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)

"""What a form is besides its graph and weights: form.json, written and read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from unbraid import _folder
from unbraid._folder import Generation
from unbraid.capture.signature import Number, TensorSpec
from unbraid.capture.trees import parts_of
from unbraid.errors import CheckpointError, TraceError
from unbraid.saved._names import FILE, FORM, UNCHECKED, VERSION, WEIGHTS

_LONGEST = 2**28  # bytes of form.json
_BEFORE = ("identity", "projection")  # what was looked for before a form said so
_FACTS: Mapping[str, type | tuple[type, ...]] = {
    "forward": list,
    "inputs": dict,
    "output": dict,
    "learned": list,
    "layers": list,
    "heads": bool,
    "deletions": list,
    "tolerance": (float, int, type(None)),
    "error": (float, int),
    "silent": list,
}


@dataclass(frozen=True)
class Facts:
    """What a form is besides its graph, signature and weights.

    Attributes:
        learned: the names in the state of the model's parameters.
        layers: the names of the layers of a chain; empty for a traced model.
        skips: the kinds of skip connections that were looked for.
        heads: whether attention branches are split by head.
        deletions: the branches that were deleted.
        moved: the order in which its blocks run; empty where it is the model's.
        tolerance: the largest error accepted between form and model; None for that of the type.
        error: the error that was measured.
        silent: the indices of the silent blocks.
        notes: what a reader must know.
    """

    learned: frozenset[str]
    layers: tuple[str, ...]
    skips: tuple[str, ...]
    heads: bool
    deletions: tuple[int | tuple[int, int], ...]
    moved: tuple[int, ...]
    tolerance: float | None
    error: float
    silent: tuple[int, ...]
    notes: tuple[str, ...]


def files_of_weights(generation: Generation, facts: Mapping[str, Any]) -> list[str]:
    """The files of weights; a form saved before there were several does not name its one."""
    names = facts.get("weights", [WEIGHTS])
    if not isinstance(names, list) or not all(isinstance(name, str) and FILE.fullmatch(name) for name in names):
        raise CheckpointError(
            f"load: {generation.folder / FORM} is no description of a form: weights is {str(names)[:80]}."
        )
    return names


def parse_facts(facts: Mapping[str, Any]) -> Facts:
    """The facts as they are used; notes are somebody's text, cut to what a page can hold."""
    notes = facts.get("notes")
    notes = notes if isinstance(notes, list) else []
    return Facts(
        learned=frozenset(facts["learned"]),
        layers=tuple(facts["layers"]),
        skips=tuple(map(str, facts.get("skips") or _BEFORE)),
        heads=facts["heads"],
        deletions=tuple(tuple(item) if isinstance(item, list) else item for item in facts["deletions"]),
        moved=tuple(facts.get("moved") or ()),
        tolerance=facts["tolerance"],
        error=facts["error"],
        silent=tuple(facts["silent"]),
        notes=tuple(map(_printable, notes[:9])),
    )


def _printable(note: object) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(note)[:600])


def read_facts(generation: Generation) -> dict[str, Any]:
    """What form.json says, its version and the kind of each entry checked.

    Raises:
        CheckpointError: it is no description of a form, or of another version, or lacks its checksums.
    """
    path = generation.folder / FORM
    try:
        facts: dict[str, Any] = json.loads(generation.open(FORM).read(most=_LONGEST).decode("utf-8"))
        version = facts["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"load: {path} is no description of a form: {first_line(error)}") from error
    if version not in (VERSION, UNCHECKED):
        raise CheckpointError(
            f"load: {path} has version {str(version)[:80]}; this unbraid reads {UNCHECKED} and {VERSION}."
        )
    if version != UNCHECKED and generation.sums is None:
        raise CheckpointError(
            f"load: {generation.folder} lacks {_folder.SUMS}, with which its files are checked. Copy the whole folder."
        )
    for name, kind in _FACTS.items():
        if not isinstance(facts.get(name), kind):
            raise CheckpointError(f"load: {path} is no description of a form: {name} is {str(facts.get(name))[:80]}.")
    return facts


def pack(value: Any) -> Any:
    """A tree of expected tensors and constants as JSON; a class of the model's library as a dict of its fields."""
    if isinstance(value, TensorSpec):
        return {"tensor": asdict(value)}
    if isinstance(value, Number):
        return {"number": value.stream}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return {type(value).__name__: [pack(item) for item in value]}
    if (parts := parts_of(value)) is not None:
        if isinstance(value, list | tuple):
            return {"tuple": [pack(item) for item in value]}
        return {"dict": {str(key): pack(item) for key, item in parts.items()}}
    if value is None or isinstance(value, bool | int | float | str):
        return {"constant": value}
    raise TraceError(f"save: the model's inputs or outputs hold a {type(value).__name__}, which JSON cannot hold.")


def unpack(packed: Mapping[str, Any]) -> Any:
    """The tree that `pack` wrote."""
    ((kind, value),) = packed.items()
    if kind == "tensor":
        return TensorSpec(value["stream"], tuple(value["sizes"]), value["dtype"])
    if kind == "number":
        return Number(value)
    if kind == "dict":
        return {key: unpack(item) for key, item in value.items()}
    if kind in {"list", "tuple"}:
        return [unpack(item) for item in value] if kind == "list" else tuple(unpack(item) for item in value)
    return value


def first_line(error: Exception) -> str:
    """The first line of a foreign message that says something, or the kind of the error."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)

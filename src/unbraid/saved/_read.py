"""Reading a saved form: from one generation of its files, each checked against SHA256SUMS.

With `stream` the weights stay in their files, which are held open: whatever is saved there later, the form keeps what
it was loaded from.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind

from unbraid import _folder
from unbraid._folder import Generation
from unbraid._openfile import OpenFile
from unbraid.capture import Capture, exclusive, functional, own
from unbraid.capture.signature import Signature
from unbraid.errors import CheckpointError, UnbraidError
from unbraid.graph.state import State, Streamed
from unbraid.saved._archive import harmless
from unbraid.saved._facts import Facts, files_of_weights, first_line, parse_facts, read_facts, unpack
from unbraid.saved._layout import PLAIN, Layout
from unbraid.saved._names import FORM, GRAPH, WEIGHTS
from unbraid.saved._tensors import Stored, stored

T = TypeVar("T")


def load(folder: Path, use: Callable[[Capture, Facts], T], *, stream: bool = False) -> T:
    """What a function makes of a saved form: of its computation, and of the facts beside it.

    Args:
        folder: what `save` wrote.
        use: the function, run while the files are of one moment.
        stream: leave the weights in the files.

    Raises:
        CheckpointError: a file is missing or damaged, would run code when read, or the files do not belong together.
    """
    return in_one_generation(folder, partial(_read, use=use, stream=stream))


def in_one_generation(folder: Path, use: Callable[[Generation], T]) -> T:
    """What a function makes of a folder's files as they were at one moment."""
    try:
        return _folder.read(folder, use, holds=f"{GRAPH}, {FORM}", unlisted=True)
    except CheckpointError as error:
        said = str(error)
        raise CheckpointError(said if said.startswith("load: ") else f"load: {said}") from error


def weights_of(generation: Generation) -> list[OpenFile]:
    """The files of weights of a saved form; none where the folder holds no form."""
    if not generation.has(FORM):
        return []
    return [generation.open(name) for name in files_of_weights(generation, read_facts(generation))]


def _read(generation: Generation, *, use: Callable[[Capture, Facts], T], stream: bool) -> T:
    folder = generation.folder
    if missing := [name for name in (GRAPH, FORM) if not generation.has(name)]:
        raise CheckpointError(f"load: {folder} is no saved form: it lacks {', '.join(missing)}.")
    facts = read_facts(generation)
    program = _program(generation.open(GRAPH))
    entries = _entries([generation.open(name) for name in files_of_weights(generation, facts)], facts)
    state: State = Streamed(entries) if stream else {name: entry.read() for name, entry in entries.items()}
    try:
        with exclusive():
            captured = _captured(program, state, facts)
        return use(captured, parse_facts(facts))
    except UnbraidError:
        raise
    except Exception as error:  # the files are sound, and do not belong together
        raise CheckpointError(f"load: {folder} holds no form: {type(error).__name__}: {first_line(error)}") from error


def _entries(files: list[OpenFile], facts: Mapping[str, Any]) -> dict[str, Stored]:
    """The tensors of the files, to be read as they lay when they were saved."""
    entries: dict[str, Stored] = {}
    for file in files:
        entries |= stored(file)
    layouts = facts.get("layouts", {})
    try:
        parsed = {name: Layout.parsed(layouts[name]) for name in entries.keys() & layouts.keys()}
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"load: {FORM} is no description of a form: {error}") from error
    return {name: replace(entry, layout=parsed.get(name, PLAIN)) for name, entry in entries.items()}


def _program(file: OpenFile) -> ExportedProgram:
    """Read a graph; torch.export, which trusts what it reads, is shown a harmless copy."""
    try:
        return torch.export.load(io.BytesIO(harmless(file.read(most=file.size))))
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged archive makes the reader raise
        raise CheckpointError(f"load: {file.path} cannot be read as a graph: {first_line(error)}") from error


def _captured(program: ExportedProgram, state: State, facts: Mapping[str, Any]) -> Capture:
    graph, _ = functional(program)
    placeholders = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    names = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT and spec.target is not None:
            names[spec.arg.name] = own(spec.target)
        elif isinstance(spec.arg, ConstantArgument):
            graph.erase_node(placeholders[spec.arg.name])
    if missing := sorted(set(names.values()) - state.keys()):
        raise CheckpointError(f"load: {WEIGHTS} lacks {missing[0]!r} and {len(missing) - 1} more that the graph reads.")
    for node, name in names.items():
        wanted, given = placeholders[node].meta["val"], state[name]
        if tuple(wanted.shape) != tuple(given.shape) or wanted.dtype != given.dtype:
            raise CheckpointError(
                f"load: {WEIGHTS} is of another model: {name} is {given.dtype} {list(given.shape)} there, and "
                f"{wanted.dtype} {list(wanted.shape)} in the graph."
            )
    inputs = {name: unpack(value) for name, value in facts["inputs"].items()}
    signature = Signature(tuple(facts["forward"]), inputs, unpack(facts["output"]))
    return Capture(graph, state, names, signature, "export", program)

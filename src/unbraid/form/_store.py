"""A form as a folder: torch.export's own format for the graph, safetensors for the weights, JSON for the rest.

The files change together (`_folder`), and a form is read from one generation of them, each checked against
SHA256SUMS. A form whose weights stay in their files holds these open: whatever is saved there later, it keeps what it
was loaded from. How tensors lay in memory is kept too (`_layout`), so that a form loaded computes the bits of the one
saved.
"""

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils import _pytree as pytree

from unbraid import _folder
from unbraid._claim import claimed
from unbraid._folder import Generation
from unbraid._openfile import OpenFile
from unbraid.errors import CheckpointError, TraceError, UnbraidError
from unbraid.form._alone import alone
from unbraid.form._archive import harmless
from unbraid.form._capture import Capture
from unbraid.form._functional import functional
from unbraid.form._handed import own
from unbraid.form._layout import PLAIN, Layout
from unbraid.form._signature import Expected, Number, Signature
from unbraid.form._tensors import Stored, stored
from unbraid.form._trees import parts_of
from unbraid.walk import State, Streamed, like

if TYPE_CHECKING:
    from unbraid.form._form import ResidualForm

T = TypeVar("T")

_GRAPH, _WEIGHTS, _FORM = "graph.pt2", "weights.safetensors", "form.json"
_NUMBERED, _FILE = "weights-{:05}.safetensors", re.compile(r"weights(-[0-9]{5,9})?\.safetensors")
_VERSION, _UNCHECKED = 2, 1  # what is written; and before that, of which some have no checksums
_SHARD = (
    2e9  # bytes of one file of weights, unless a single tensor has more: twice as much is in memory as it is written
)
_PATIENCE = 20.0  # seconds to wait for another process that saves into the folder
_LONGEST = 2**28  # bytes of form.json
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


def save(form: "ResidualForm", folder: Path) -> Path:
    """See `ResidualForm.save`."""
    if form.origin is None or form.origin.program is None:
        raise TraceError(
            "save: this form is one recorded run, and a form is saved in torch.export's format alone. Save the model's "
            f"weights and trace it again.\n  It is a recorded run because {form.signature.recorded}"
        )
    if any(like(form.state, name).is_meta and not isinstance(form.state, Streamed) for name in form.state):
        raise TraceError("save: this form was traced on the meta device and has no weights; form.load(FOLDER) first.")
    shards = list(_shards(form.state))
    weights = {_WEIGHTS if len(shards) == 1 else _NUMBERED.format(n): names for n, names in enumerate(shards, start=1)}
    layouts = {name: _layout(form.state, name) for name in form.state}
    facts = {
        "version": _VERSION,
        "forward": list(form.signature.forward),
        "inputs": {name: _packed(value) for name, value in form.signature.inputs.items()},
        "output": _packed(form.signature.output),
        "learned": sorted(form.learned),
        "layers": list(form.origin.layers),
        "heads": form.heads,
        "deletions": list(form.deletions),
        "moved": list(form.moved),
        "tolerance": form.tolerance,
        "error": form.error,
        "silent": [block.index for block in form.silent],
        "notes": list(form.notes),
        "weights": list(weights),
        "layouts": {name: layout.facts() for name, layout in layouts.items() if layout != PLAIN},
    }
    files: dict[str, Callable[[Path], object]] = {
        _GRAPH: partial(Path.write_bytes, data=_graph(form.origin.program)),
        **{file: partial(_write_weights, form.state, names) for file, names in weights.items()},
        _FORM: partial(Path.write_text, data=json.dumps(facts, indent=1), encoding="utf-8"),
    }
    with claimed(folder, "writing into", patience=_PATIENCE):
        _folder.write(folder, files, gone=_weights_there(folder) - weights.keys())
    return folder


def load(folder: Path, *, stream: bool = False) -> "ResidualForm":
    """See `ResidualForm.load`."""
    return in_one_generation(folder, partial(_read, stream=stream))


def in_one_generation(folder: Path, use: Callable[[Generation], T]) -> T:
    """What a function makes of a folder's files as they were at one moment."""
    try:
        return _folder.read(folder, use, holds=f"{_GRAPH}, {_FORM}", unlisted=True)
    except CheckpointError as error:
        said = str(error)
        raise CheckpointError(said if said.startswith("load: ") else f"load: {said}") from error


def weights_of(generation: Generation) -> list[OpenFile]:
    """The files of weights of a saved form; none where the folder holds no form."""
    if not generation.has(_FORM):
        return []
    return [generation.open(name) for name in _names(generation, _facts(generation))]


def _read(generation: Generation, *, stream: bool) -> "ResidualForm":
    from unbraid.form._trace import assemble  # the trace itself makes forms, which load themselves

    folder = generation.folder
    if missing := [name for name in (_GRAPH, _FORM) if not generation.has(name)]:
        raise CheckpointError(f"load: {folder} is no saved form: it lacks {', '.join(missing)}.")
    facts = _facts(generation)
    program = _program(generation.open(_GRAPH))
    entries = _entries([generation.open(name) for name in _names(generation, facts)], facts)
    state: State = Streamed(entries) if stream else {name: entry.read() for name, entry in entries.items()}
    try:
        with alone():
            captured = _captured(program, state, facts)
        made = assemble(captured, None, set(facts["learned"]), facts["layers"])
        return _edited(made.split("heads" if facts["heads"] else None), facts)
    except UnbraidError:
        raise
    except Exception as error:  # the files are sound, and do not belong together
        raise CheckpointError(f"load: {folder} holds no form: {type(error).__name__}: {_line(error)}") from error


def _layout(state: State, name: str) -> Layout:
    if isinstance(state, Streamed) and name not in state.kept:
        place = state.places[name]
        return place.layout if isinstance(place, Stored) else PLAIN
    return Layout.of(state[name])


def _entries(files: list[OpenFile], facts: Mapping[str, Any]) -> dict[str, Stored]:
    """The tensors of the files, to be read as they lay when they were saved."""
    found = {name: entry for file in files for name, entry in stored(file).items()}
    layouts = facts.get("layouts", {})
    try:
        parsed = {name: Layout.parsed(layouts[name]) for name in found.keys() & layouts.keys()}
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"load: {_FORM} is no description of a form: {error}") from error
    return {name: replace(entry, layout=parsed.get(name, PLAIN)) for name, entry in found.items()}


def _weights_there(folder: Path) -> set[str]:
    """The files of weights of the form that the folder holds.

    Raises:
        CheckpointError: the folder holds something else: a run, say, whose files would be mixed with the form's.
    """
    try:
        names = _folder.listed(folder).keys()
    except OSError:
        return set()  # what is wrong with the folder is said when it is written
    if others := sorted(name for name in names if name not in (_GRAPH, _FORM) and not _FILE.fullmatch(name)):
        raise CheckpointError(
            f"save: {folder} holds something else, a run of training perhaps: {', '.join(others[:3])}. A form takes a "
            "folder of its own: choose another one."
        )
    if not names and (folder / _FORM).is_file():  # saved before there were checksums
        return {path.name for path in folder.glob("weights*.safetensors") if _FILE.fullmatch(path.name)}
    return {name for name in names if _FILE.fullmatch(name)}


def _shards(state: State) -> Iterator[list[str]]:
    """The names of the tensors in one file, and in the next."""
    names, size = list[str](), 0
    for name in state:
        more = like(state, name).nbytes
        if names and size + more > _SHARD:
            yield names
            names, size = [], 0
        names, size = [*names, name], size + more
    yield names


def _write_weights(state: State, names: list[str], path: Path) -> None:
    _folder.write_tensors({name: state[name] for name in names}, path)


def _graph(program: ExportedProgram) -> bytes:
    content = io.BytesIO()  # torch says nothing of a full disk that one could tell from other errors
    torch.export.save(_bare(program), content)
    return content.getvalue()


def _names(generation: Generation, facts: Mapping[str, Any]) -> list[str]:
    """The files of weights; a form saved before there were several does not name its one."""
    names = facts.get("weights", [_WEIGHTS])
    if not isinstance(names, list) or not all(isinstance(name, str) and _FILE.fullmatch(name) for name in names):
        raise CheckpointError(
            f"load: {generation.folder / _FORM} is no description of a form: weights is {str(names)[:80]}."
        )
    return names


def _edited(form: "ResidualForm", facts: Mapping[str, Any]) -> "ResidualForm":
    silent = tuple(form.blocks[index] for index in facts["silent"])
    form = replace(form, tolerance=facts["tolerance"], error=facts["error"], silent=silent)
    deletions = [tuple(item) if isinstance(item, list) else item for item in facts["deletions"]]
    edited = form.reorder(facts["moved"]) if facts.get("moved") else form
    edited = edited.without(*deletions) if deletions else edited
    notes = facts.get("notes")
    notes = notes if isinstance(notes, list) else []
    said = tuple("".join(c if c.isprintable() else "?" for c in str(note)[:600]) for note in notes[:9])
    return replace(edited, error=facts["error"], notes=said)


def _bare(program: ExportedProgram) -> ExportedProgram:
    """The program without weights, examples, and classes of the model's library in its inputs and outputs."""
    root = program.module_call_graph[0]
    assert root.signature is not None
    specs = program.call_spec
    flat_in = pytree.tree_structure(((0,) * specs.in_spec.num_leaves, {}))
    flat_out = pytree.tree_structure((0,) * specs.out_spec.num_leaves)
    signature = replace(root.signature, in_spec=flat_in, out_spec=flat_out, forward_arg_names=None)
    return ExportedProgram(
        root=program.graph_module,
        graph=program.graph,
        graph_signature=program.graph_signature,
        state_dict={name: _empty(tensor) for name, tensor in program.state_dict.items()},
        range_constraints=program.range_constraints,
        module_call_graph=[replace(root, signature=signature)],
        constants={name: _empty(tensor) for name, tensor in program.constants.items()},
        verifiers=program.verifiers,
    )


def _empty(tensor: Tensor) -> Tensor:
    empty = torch.empty(0, dtype=tensor.dtype, device="cpu")
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty


def _program(file: OpenFile) -> ExportedProgram:
    """Read a graph; torch.export, which trusts what it reads, is shown a harmless copy."""
    try:
        return torch.export.load(io.BytesIO(harmless(file.read(most=file.size))))
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged archive makes the reader raise
        raise CheckpointError(f"load: {file.path} cannot be read as a graph: {_line(error)}") from error


def _facts(generation: Generation) -> dict[str, Any]:
    path = generation.folder / _FORM
    try:
        facts: dict[str, Any] = json.loads(generation.open(_FORM).read(most=_LONGEST).decode("utf-8"))
        version = facts["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"load: {path} is no description of a form: {_line(error)}") from error
    if version not in (_VERSION, _UNCHECKED):
        raise CheckpointError(
            f"load: {path} has version {str(version)[:80]}; this unbraid reads {_UNCHECKED} and {_VERSION}."
        )
    if version != _UNCHECKED and generation.sums is None:
        raise CheckpointError(
            f"load: {generation.folder} lacks {_folder.SUMS}, with which its files are checked. Copy the whole folder."
        )
    for name, kind in _FACTS.items():
        if not isinstance(facts.get(name), kind):
            raise CheckpointError(f"load: {path} is no description of a form: {name} is {str(facts.get(name))[:80]}.")
    return facts


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
        raise CheckpointError(
            f"load: {_WEIGHTS} lacks {missing[0]!r} and {len(missing) - 1} more that the graph reads."
        )
    for node, name in names.items():
        wanted, found = placeholders[node].meta["val"], state[name]
        if tuple(wanted.shape) != tuple(found.shape) or wanted.dtype != found.dtype:
            raise CheckpointError(
                f"load: {_WEIGHTS} is of another model: {name} is {found.dtype} {list(found.shape)} there, and "
                f"{wanted.dtype} {list(wanted.shape)} in the graph."
            )
    inputs = {name: _unpacked(value) for name, value in facts["inputs"].items()}
    signature = Signature(tuple(facts["forward"]), inputs, _unpacked(facts["output"]))
    return Capture(graph, state, names, signature, "export", program)


def _packed(value: Any) -> Any:
    """A tree of expected tensors and constants as JSON; a class of the model's library as a dict of its fields."""
    if isinstance(value, Expected):
        return {"tensor": asdict(value)}
    if isinstance(value, Number):
        return {"number": value.stream}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return {type(value).__name__: [_packed(item) for item in value]}
    if (parts := parts_of(value)) is not None:
        if isinstance(value, list | tuple):
            return {"tuple": [_packed(item) for item in value]}
        return {"dict": {str(key): _packed(item) for key, item in parts.items()}}
    if value is None or isinstance(value, bool | int | float | str):
        return {"constant": value}
    raise TraceError(f"save: the model's inputs or outputs hold a {type(value).__name__}, which JSON cannot hold.")


def _unpacked(packed: Mapping[str, Any]) -> Any:
    ((kind, value),) = packed.items()
    if kind == "tensor":
        return Expected(value["stream"], tuple(value["sizes"]), value["dtype"])
    if kind == "number":
        return Number(value)
    if kind == "dict":
        return {key: _unpacked(item) for key, item in value.items()}
    if kind in {"list", "tuple"}:
        return [_unpacked(item) for item in value] if kind == "list" else tuple(_unpacked(item) for item in value)
    return value


def _line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)

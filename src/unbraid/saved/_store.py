"""Writing a form: torch.export's own format for the graph, safetensors for the weights, JSON for the rest.

The files change together (`_folder`): a graph of one form and weights of another may fit, and be wrong. form.json names
the files of weights, so that what an earlier save left counts for nothing. How tensors lay in memory is kept too
(`_layout`), so that a form that is loaded computes the bits of the one saved.
"""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from unbraid import _folder
from unbraid._claim import claimed
from unbraid.capture.signature import Signature
from unbraid.errors import CheckpointError, TraceError
from unbraid.graph.state import State, Streamed, meta_tensor
from unbraid.saved._facts import Facts, pack
from unbraid.saved._layout import PLAIN, Layout
from unbraid.saved._names import FILE, FORM, GRAPH, NUMBERED, VERSION, WEIGHTS
from unbraid.saved._tensors import Stored

# Bytes of one file of weights, unless a single tensor has more: twice as much is in memory as it is written.
_SHARD = 2e9
_PATIENCE = 20.0  # seconds to wait for another process that saves into the folder


def save(folder: Path, program: ExportedProgram | None, signature: Signature, state: State, facts: Facts) -> Path:
    """Write a form into a folder; see `ResidualForm.save`."""
    if program is None:
        raise TraceError(
            "save: this form is one recorded run, and a form is saved in torch.export's format alone. Save the model's "
            f"weights and trace it again.\n  It is a recorded run because {signature.recorded}"
        )
    if any(meta_tensor(state, name).is_meta and not isinstance(state, Streamed) for name in state):
        raise TraceError(
            "save: this form was traced on the meta device and has no weights; form.with_weights(FOLDER) first."
        )
    shards = list(_shards(state))
    weights = {WEIGHTS if len(shards) == 1 else NUMBERED.format(n): names for n, names in enumerate(shards, start=1)}
    layouts = {name: _layout(state, name) for name in state}
    described = {
        "version": VERSION,
        "forward": list(signature.forward),
        "inputs": {name: pack(value) for name, value in signature.inputs.items()},
        "output": pack(signature.output),
        **asdict(facts),
        "learned": sorted(facts.learned),
        "weights": list(weights),
        "layouts": {name: layout.facts() for name, layout in layouts.items() if layout != PLAIN},
    }
    files: dict[str, Callable[[Path], object]] = {
        GRAPH: partial(Path.write_bytes, data=_graph(program)),
        **{file: partial(_write_weights, state, names) for file, names in weights.items()},
        FORM: partial(Path.write_text, data=json.dumps(described, indent=1), encoding="utf-8"),
    }
    with claimed(folder, "writing into", patience=_PATIENCE):
        _folder.write(folder, files, gone=_weights_there(folder) - weights.keys())
    return folder


def _layout(state: State, name: str) -> Layout:
    if isinstance(state, Streamed) and name not in state.kept:
        place = state.places[name]
        return place.layout if isinstance(place, Stored) else PLAIN
    return Layout.of(state[name])


def _weights_there(folder: Path) -> set[str]:
    """The files of weights of the form that the folder holds.

    Raises:
        CheckpointError: the folder holds something else: a run, say, whose files would be mixed with the form's.
    """
    try:
        names = _folder.listed(folder).keys()
    except OSError:
        return set()  # what is wrong with the folder is said when it is written
    if others := sorted(name for name in names if name not in (GRAPH, FORM) and not FILE.fullmatch(name)):
        raise CheckpointError(
            f"save: {folder} holds something else, a run of training perhaps: {', '.join(others[:3])}. A form takes a "
            "folder of its own: choose another one."
        )
    if not names and (folder / FORM).is_file():  # saved before there were checksums
        return {path.name for path in folder.glob("weights*.safetensors") if FILE.fullmatch(path.name)}
    return {name for name in names if FILE.fullmatch(name)}


def _shards(state: State) -> Iterator[list[str]]:
    """The names of the tensors in one file, and in the next."""
    names, size = list[str](), 0
    for name in state:
        more = meta_tensor(state, name).nbytes
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

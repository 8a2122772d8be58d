"""A model's computation as one graph of operators, by torch.export or, where that fails, by recording a run.

A recorded run carries the decisions on which its way depends. The dispatch tracer writes down which values the model's
own code read; a call at which they differ is refused, so that one recorded way is never taken for another.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import get_ident
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, _trace
from torch.export.graph_signature import InputKind, OutputKind

from unbraid.capture._exportable import Handed, computed, own
from unbraid.capture._failures import exported_not, fixed_sizes, one_run, said, uncaptured
from unbraid.capture._functional import functional
from unbraid.capture._gradient_regions import written_out
from unbraid.capture._operator_lines import noting_lines
from unbraid.capture._recorder import record
from unbraid.capture._side_run import Draws, seeding
from unbraid.capture._silenced import unwarned
from unbraid.capture._untouched import untouched
from unbraid.capture.signature import Number, Signature, TensorSpec, positions, sizes
from unbraid.capture.trees import tensors_in
from unbraid.errors import TraceError

Tracer: TypeAlias = Literal["auto", "export", "dispatch"]


@dataclass(frozen=True)
class Capture:
    """A model's computation as a graph of operators without side effects.

    Attributes:
        graph: one placeholder for each parameter, buffer, constant and input; outputs in the order of `signature`.
        state: the tensors themselves, shared with the model, by their names in it.
        names: the name in `state` of each placeholder that stands for a tensor of the state.
        signature: how calls are matched with the other placeholders.
        tracer: which tracer served.
        program: the exported program; None where the model could not be exported.
        notes: what a reader must know: why sizes are fixed.
    """

    graph: fx.Graph
    state: Mapping[str, Tensor]
    names: Mapping[str, str]
    signature: Signature
    tracer: str
    program: ExportedProgram | None = None
    notes: tuple[str, ...] = ()

    def constant(self, placeholder: str) -> Tensor | None:
        """The tensor of the state that a placeholder stands for; None where it stands for an input."""
        return self.state[self.names[placeholder]] if placeholder in self.names else None


def capture(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    tracer: Tracer = "auto",
    *,
    free: bool | None = None,
    departed: str = "",
) -> Capture:
    """Capture what a model computes, by the first tracer that can.

    Args:
        model: any module.
        args: its positional inputs.
        kwargs: its keyword inputs.
        tracer: "export" leaves every size free that the model does not fix itself; "dispatch" records one run, with
            its sizes and the way that it takes through the model's code; "auto" tries them in this order.
        free: whether the exporter is to leave sizes free; by default not on the meta device, where nothing runs.
        departed: with tracer="dispatch", how an exported graph departed from the model, where that is why.

    Raises:
        TraceError: no tracer can take the model.
    """
    reasons = {"export": departed} if departed else {}
    if tracer != "dispatch":
        try:
            free = not _on_meta(args, kwargs) if free is None else free
            handed = Handed(model, args, kwargs)
            captured = _exported(args, handed, _export(handed, reasons, free=free))
            return replace(captured, notes=fixed_sizes(reasons))
        except Exception as error:
            reasons["export"] = said(model, error)
            if tracer == "export" or _on_meta(args, kwargs):
                raise uncaptured(model, (args, dict(kwargs)), reasons) from error
    try:
        recorded = record(model, args, kwargs)
    except Exception as error:
        reasons["dispatch"] = said(model, error)
        raise uncaptured(model, (args, dict(kwargs)), reasons) from error
    signature = replace(recorded.signature, recorded=exported_not(reasons))
    return Capture(
        recorded.graph, recorded.state, recorded.names, signature, "dispatch", notes=one_run(signature.recorded)
    )


def _export(handed: Handed, reasons: dict[str, str], *, free: bool) -> ExportedProgram:
    """Export with every size left free that the model does not fix itself, or else with the sizes as they are."""
    if free:
        doubled = _doubled(_distinct(handed.tensors))
        shapes = {name: _free_sizes(tensor) for name, tensor in zip(handed.names, doubled, strict=True)}
        try:
            return _quietly(handed, doubled, shapes)
        except Exception as error:
            reasons["export, sizes free"] = said(handed.model, error)
    return _quietly(handed, _distinct(handed.tensors), None)


def _quietly(handed: Handed, tensors: tuple[Tensor, ...], shapes: dict[str, Any] | None) -> ExportedProgram:
    # It warns of attributes that the model has set: they are put back.
    with (
        _unprinted(),
        unwarned("The tensor attribute"),
        untouched(handed.model, handed.leaves),
        seeding(Draws()),
        written_out(),
        noting_lines(),
    ):
        return torch.export.export(handed.module, tensors, dynamic_shapes=shapes, strict=False)


@contextmanager
def _unprinted() -> Iterator[None]:
    """The exporter prints the graph that it could not finish; the error says enough.

    Its `print` is replaced, in this thread alone: what other threads write goes where it always goes.
    """
    thread, names, usual = get_ident(), vars(_trace), print
    names["print"] = lambda *said, **how: None if get_ident() == thread else usual(*said, **how)
    try:
        yield
    finally:
        del names["print"]


def _let_go(graph: fx.Graph) -> None:
    """Take apart a ring of torch's: sizes hold the tensors that they were found in, which hold the sizes, for ever."""
    for node in graph.nodes:
        value = node.meta.get("val")
        for size in value.shape if isinstance(value, Tensor) else ():
            if isinstance(size, torch.SymInt):
                sizes_of = size.node.shape_env
                sizes_of.tracked_fakes = None
                sizes_of.fake_tensor_cache.clear()


def _exported(args: tuple[Any, ...], handed: Handed, program: ExportedProgram) -> Capture:
    graph, program = functional(program)
    _let_go(graph)
    placeholders = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    names, state, inputs = {}, {}, []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            inputs.append(_computed(placeholders[spec.arg.name]))
        elif spec.target is not None:
            names[spec.arg.name] = own(spec.target)
            state[own(spec.target)] = _tensor(program, spec.target)
    (results,) = next(node for node in graph.nodes if node.op == "output").args
    outputs = (
        _computed(result)
        for spec, result in zip(program.graph_signature.output_specs, results, strict=True)
        if spec.kind is OutputKind.USER_OUTPUT
    )
    assert handed.returned is not None, "it has been exported, so it has run"
    returned, structure = handed.returned
    given = iter(inputs)
    filled = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in handed.leaves]
    traced_args, traced_kwargs = handed.structure.filled(iter(filled))
    positional, by_position = positions(handed.model, args)
    signature = Signature(
        forward=positional,
        inputs={**dict(zip(by_position, traced_args, strict=True)), **traced_kwargs},
        output=structure.filled(iter([next(outputs) if computed(leaf) else leaf for leaf in returned])),
    )
    return Capture(graph, state, names, signature, "export", program)


def _distinct(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The exporter takes one tensor given for two inputs for one input: each gets a copy of its own."""
    seen: set[int] = set()
    own = []
    for tensor in tensors:
        own.append(tensor.clone() if id(tensor) in seen else tensor)
        seen.add(id(tensor))
    return tuple(own)


def _doubled(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The exporter takes a size of 1 for a constant: a batch of one example is doubled for the export alone."""
    if any(tensor.ndim and len(tensor) != 1 for tensor in tensors):
        return tensors
    return tuple(torch.cat([tensor, tensor]) if tensor.ndim else tensor for tensor in tensors)


def _free_sizes(tensor: Tensor) -> dict[int, Any]:
    # Height and width of images stay as they are: through strides and windows their expressions grow, and the exporter
    # takes five times as long on DenseNet and does not come back from HaloNet or DaViT.
    count = 1 if tensor.ndim > 3 else tensor.ndim
    return {i: Dim.AUTO for i, size in enumerate(tensor.shape[:count]) if size > 1}


def _on_meta(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    return any(tensor.is_meta for tensor in tensors_in((args, dict(kwargs))))


def _tensor(program: ExportedProgram, name: str) -> Tensor:
    tensor = program.state_dict[name] if name in program.state_dict else program.constants[name]
    if not isinstance(tensor, Tensor):
        raise TraceError(f"The model holds {name!r}, a {type(tensor).__name__}, which no graph can carry.")
    return tensor.detach()


def _computed(node: Any) -> TensorSpec | Number | Any:
    """An input or output as the signature holds it: what its tensor looks like, a number, or a constant."""
    if not isinstance(node, fx.Node):
        return node  # a number that was found to be fixed
    value = node.meta["val"]
    return TensorSpec(node.name, sizes(value), str(value.dtype)) if isinstance(value, Tensor) else Number(node.name)

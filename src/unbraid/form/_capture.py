import inspect
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils import _pytree as pytree

from unbraid.errors import TraceError
from unbraid.form._dispatch import record
from unbraid.form._functional import functional
from unbraid.form._grad_modes import written_out
from unbraid.form._lines import noting_lines
from unbraid.form._signature import Expected, Signature, positions, sizes
from unbraid.form._uncaptured import said, uncaptured

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
    """

    graph: fx.Graph
    state: Mapping[str, Tensor]
    names: Mapping[str, str]
    signature: Signature
    tracer: str
    program: ExportedProgram | None = None

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
) -> Capture:
    """Capture what a model computes, by the first tracer that can.

    Args:
        model: any module.
        args: its positional inputs.
        kwargs: its keyword inputs.
        tracer: "export" leaves every size free that the model does not fix itself; "dispatch" records one run, with
            its sizes and the way that it takes through the model's code; "auto" tries them in this order.
        free: whether the exporter is to leave sizes free; by default not on the meta device, where nothing runs.

    Raises:
        TraceError: no tracer can take the model.
    """
    reasons: dict[str, str] = {}
    if tracer != "dispatch":
        try:
            free = not _on_meta(args, kwargs) if free is None else free
            return _exported(model, args, _export(model, args, dict(kwargs), reasons, free=free))
        except Exception as error:
            reasons["export"] = said(model, error)
            if tracer == "export" or _on_meta(args, kwargs):
                raise uncaptured(model, reasons) from error
    try:
        recorded = record(model, args, kwargs)
    except Exception as error:
        reasons["dispatch"] = said(model, error)
        raise uncaptured(model, reasons) from error
    return Capture(recorded.graph, recorded.state, recorded.names, recorded.signature, "dispatch")


def _export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], reasons: dict[str, str], *, free: bool
) -> ExportedProgram:
    """Export with every size left free that the model does not fix itself, or else with the sizes as they are."""
    if free:
        doubled_args, doubled_kwargs = _doubled(*_apart(args, kwargs))
        try:
            shapes = _free(model, doubled_args, doubled_kwargs)
            with redirect_stderr(StringIO()), written_out(), noting_lines():  # it prints the graph that it could not finish
                return torch.export.export(model, doubled_args, doubled_kwargs, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            reasons["export, sizes free"] = said(model, error)
    with redirect_stderr(StringIO()), written_out(), noting_lines():
        return torch.export.export(model, args, kwargs, strict=False)


def _let_go(graph: fx.Graph) -> None:
    """Take apart a ring of torch's: sizes hold the tensors that they were found in, which hold the sizes, for ever."""
    for node in graph.nodes:
        value = node.meta.get("val")
        for size in value.shape if isinstance(value, Tensor) else ():
            if isinstance(size, torch.SymInt):
                sizes_of = size.node.shape_env
                sizes_of.tracked_fakes = None
                sizes_of.fake_tensor_cache.clear()


def _exported(model: nn.Module, args: tuple[Any, ...], program: ExportedProgram) -> Capture:
    graph, program = functional(program)
    _let_go(graph)
    placeholders = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    names, state, leaves = {}, {}, []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            leaves.append(_result(spec.arg, placeholders[spec.arg.name]))
            if isinstance(spec.arg, ConstantArgument):
                graph.erase_node(placeholders[spec.arg.name])  # its value is built into the graph
        elif spec.target is not None:
            names[spec.arg.name] = spec.target
            state[spec.target] = _tensor(program, spec.target)
    traced_args, traced_kwargs = pytree.tree_unflatten(leaves, program.call_spec.in_spec)
    (results,) = next(node for node in graph.nodes if node.op == "output").args
    outputs = [
        _result(spec.arg, result)
        for spec, result in zip(program.graph_signature.output_specs, results, strict=True)
        if spec.kind is OutputKind.USER_OUTPUT
    ]
    positional, by_position = positions(model, args)
    signature = Signature(
        forward=positional,
        inputs={**dict(zip(by_position, traced_args, strict=True)), **traced_kwargs},
        output=pytree.tree_unflatten(outputs, program.call_spec.out_spec),
    )
    return Capture(graph, state, names, signature, "export", program)


def _apart(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The exporter takes one tensor given for two inputs for one input: each gets a copy of its own."""
    seen: set[int] = set()

    def own(tensor: Tensor) -> Tensor:
        twice = id(tensor) in seen
        seen.add(id(tensor))
        return tensor.clone() if twice else tensor

    parted: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map_only(Tensor, own, (args, kwargs))
    return parted


def _doubled(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The exporter takes a size of 1 for a constant: a batch of one example is doubled for the export alone."""
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if not tensors or any(tensor.ndim and len(tensor) != 1 for tensor in tensors):
        return args, kwargs
    doubled: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map_only(
        Tensor, lambda tensor: torch.cat([tensor, tensor]) if tensor.ndim else tensor, (args, kwargs)
    )
    return doubled


def _free(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Batch and sequence sizes free, unless the model's own code fixes them."""
    arguments = dict(inspect.signature(model.forward).bind(*args, **kwargs).arguments)
    free: dict[str, Any] = pytree.tree_map(
        lambda leaf: _free_sizes(leaf) if isinstance(leaf, Tensor) else None,
        arguments,
    )
    return free


def _free_sizes(tensor: Tensor) -> dict[int, Any]:
    # Height and width of images stay as they are: through strides and windows their expressions grow, and the exporter
    # takes five times as long on DenseNet and does not come back from HaloNet or DaViT.
    count = 1 if tensor.ndim > 3 else tensor.ndim
    return {i: Dim.AUTO for i, size in enumerate(tensor.shape[:count]) if size > 1}


def _on_meta(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    return any(isinstance(x, Tensor) and x.is_meta for x in pytree.tree_leaves((args, dict(kwargs))))


def _tensor(program: ExportedProgram, name: str) -> Tensor:
    tensor = program.state_dict[name] if name in program.state_dict else program.constants[name]
    if not isinstance(tensor, Tensor):
        raise TraceError(f"The model holds {name!r}, a {type(tensor).__name__}, which no graph can carry.")
    return tensor.detach()


def _result(argument: Any, node: Any) -> Any:
    """An input or output as the signature holds it: a constant, or what its tensor looks like."""
    if isinstance(argument, ConstantArgument):
        return argument.value
    value = node.meta["val"]
    return Expected(node.name, sizes(value), str(value.dtype)) if isinstance(value, Tensor) else None

"""A recorded run as a graph without side effects."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import traceback as notes
from torch.fx.experimental.proxy_tensor import make_fx

from unbraid.form._functional import functional, replace_in_place, tidy
from unbraid.graph import name_of

# The sizes of what these give depend on values.
_SIZED_BY_VALUES = {"nonzero", "nonzero_numpy", "masked_select", "unique", "_unique2", "unique_dim", "bincount"}


def written_down(
    forward: Callable[..., list[Tensor]], values: list[Tensor]
) -> tuple[fx.Graph, dict[str, Tensor], list[tuple[int, ...]]]:
    """The operators without side effects, the constants among them, and the sizes that depend on values.

    Constants are the last placeholders; the tensors of such sizes are the last results.
    """
    with notes.preserve_node_meta():
        module = _traced(forward, values, whole=True)
        if any("autocast" in name_of(node) for node in module.graph.nodes):
            # Entering autocast is no operator that a piece of the graph could repeat: below it, casts are spelled out.
            module = _traced(forward, values, whole=False)
        _detach_ungraded(module.graph)
        constants = _lift_constants(module)
        sized = [node for node in module.graph.nodes if _sized_by_values(node)]
        _output(module.graph).args = ([*results(module.graph), *sized],)
        shapes = [tuple(node.meta["val"].shape) for node in sized]
        if replace_in_place(module.graph):
            tidy(module.graph)
            return module.graph, constants, shapes
        # Views of one tensor are written: the recorded operators, which decide nothing, can be exported.
        program = torch.export.export(_Again(module), (*values, *constants.values()), strict=False)
        return functional(program)[0], constants, shapes


class _Again(nn.Module):
    """Runs a recorded graph with the notes of its nodes."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__()
        self.module = [module]  # hidden in a list: it has no parameters of its own

    def forward(self, *tensors: Tensor) -> Any:
        return fx.Interpreter(self.module[0]).run(*tensors)


def _traced(function: Callable[..., Any], values: list[Tensor], *, whole: bool) -> fx.GraphModule:
    tracer = make_fx(function, pre_dispatch=whole, record_stack_traces=True, _error_on_data_dependent_ops=False)
    module: fx.GraphModule = tracer(*values)
    return module


def _lift_constants(module: fx.GraphModule) -> dict[str, Tensor]:
    """Tensors that are neither parameters nor buffers become placeholders, too, after the others."""
    first = next(node for node in module.graph.nodes if node.op != "placeholder")
    constants: dict[str, Tensor] = {}
    for node in [node for node in module.graph.nodes if node.op == "get_attr"]:
        name = str(node.target)
        constant = getattr(module, name)
        if name not in constants:
            with module.graph.inserting_before(first):
                placeholder = module.graph.placeholder(name)
            placeholder.meta = {"val": constant.to("meta")}
            constants[name] = constant
        lifted = next(n for n in module.graph.nodes if n.op == "placeholder" and n.target == name)
        node.replace_all_uses_with(lifted)
        if node is first:
            first = node.next
        module.graph.erase_node(node)
    return constants


def _detach_ungraded(graph: fx.Graph) -> None:
    """Regions of torch.no_grad are marked by calls that switch gradients: no gradient leaves them."""
    enabled, ungraded = True, []
    for node in list(graph.nodes):
        if name_of(node) == "_set_grad_enabled":
            enabled = bool(node.args[0])
            graph.erase_node(node)
        elif not enabled and node.op == "call_function" and isinstance(node.meta.get("val"), Tensor):
            ungraded.append(node)
    for node in ungraded:
        with graph.inserting_after(node):
            detached = graph.call_function(torch.ops.aten.detach.default, (node,))
        detached.meta = dict(node.meta)
        node.replace_all_uses_with(detached, delete_user_cb=lambda user, detached=detached: user is not detached)


def _sized_by_values(node: fx.Node) -> bool:
    if name_of(node) == "index":
        return any(i is not None and i.meta["val"].dtype in (torch.bool, torch.uint8) for i in node.args[1])  # type: ignore[union-attr]
    return name_of(node) in _SIZED_BY_VALUES and isinstance(node.meta.get("val"), Tensor)


def _output(graph: fx.Graph) -> fx.Node:
    return next(node for node in graph.nodes if node.op == "output")


def results(graph: fx.Graph) -> list[fx.Node]:
    """What a graph returns."""
    found: Any = _output(graph).args[0]
    return list(found)

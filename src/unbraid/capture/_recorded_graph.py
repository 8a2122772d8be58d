"""A recorded run as a graph without side effects."""

import sys
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import traceback as notes
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_map_only

from unbraid.capture._functional import pure
from unbraid.capture._gradient_regions import written_out
from unbraid.capture._inlined import marked
from unbraid.graph.questions import name_of

# The sizes of what these give depend on values.
_SIZED_BY_VALUES = {"nonzero", "nonzero_numpy", "masked_select", "unique", "_unique2", "unique_dim", "bincount"}


def written_down(
    forward: Callable[..., list[Tensor]],
    values: list[Tensor],
    graded: Collection[int],
    apart: Callable[[], AbstractContextManager[None]],
) -> tuple[fx.Graph, dict[str, Tensor], list[tuple[int, ...]]]:
    """The operators without side effects, the constants among them, and the sizes that depend on values.

    Constants are the last placeholders; the tensors of such sizes are the last results.

    Args:
        forward: the run.
        values: its arguments.
        graded: the places of those that may have a gradient.
        apart: the context of each run, which puts back what it has written.
    """
    with notes.preserve_node_meta():
        with apart():
            module = _traced(forward, values, whole=True)
        if any("autocast" in name_of(node) for node in module.graph.nodes):
            # Entering autocast is no operator that a piece of the graph could repeat: below it, casts are spelled out.
            with apart():
                module = _traced(forward, values, whole=False)
        _looked_at_together(module.graph)
        flat = marked(module.graph)
        constants = _lift_constants(module)
        sized = [node for node in module.graph.nodes if _sized_by_values(node)]
        _output(module.graph).args = ([*results(module.graph), *sized],)
        shapes = [tuple(node.meta["val"].shape) for node in sized]
        placeholders = [node.name for node in module.graph.nodes if node.op == "placeholder"]
        fixed = frozenset(name for place, name in enumerate(placeholders) if place not in graded)
        return pure(flat, fixed), constants, shapes


def _traced(function: Callable[..., Any], values: list[Tensor], *, whole: bool) -> fx.GraphModule:
    tracer = make_fx(function, pre_dispatch=whole, record_stack_traces=True, _error_on_data_dependent_ops=False)
    with written_out(), _uncompiled():
        module: fx.GraphModule = tracer(*values)
    return module


def _looked_at_together(graph: fx.Graph) -> None:
    """Let the values that nodes stand for be of one kind: torch makes each apart, and refuses to compute with two."""
    together = FakeTensorMode(allow_non_fake_inputs=True)
    for node in graph.nodes:
        if "val" in node.meta:
            with together:
                node.meta["val"] = tree_map_only(FakeTensor, _same_sizes, node.meta["val"])


def _same_sizes(value: FakeTensor) -> Tensor:
    if value.layout is not torch.strided:
        return value
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device=value.device)


def _uncompiled() -> AbstractContextManager[Any]:
    """Of what is compiled (torch.compile) the Python code runs: its operators are the ones to write down."""
    dynamo = sys.modules.get("torch._dynamo")  # which takes seconds to import, and is there where anything is compiled
    return nullcontext() if dynamo is None else dynamo.config.patch(error_on_nested_fx_trace=False)


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


def _sized_by_values(node: fx.Node) -> bool:
    if name_of(node) == "index":
        return any(i is not None and i.meta["val"].dtype in (torch.bool, torch.uint8) for i in node.args[1])  # type: ignore[union-attr]
    return name_of(node) in _SIZED_BY_VALUES and isinstance(node.meta.get("val"), Tensor)


def _output(graph: fx.Graph) -> fx.Node:
    return next(node for node in graph.nodes if node.op == "output")


def results(graph: fx.Graph) -> list[fx.Node]:
    """What a graph returns."""
    returned: Any = _output(graph).args[0]
    return list(returned)

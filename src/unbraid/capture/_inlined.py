"""A captured graph without wrappers: one list of operators, each with whether gradients were on when it ran.

torch.export puts a region of torch.no_grad or of checkpointing into a module of its own, and calls it by a wrapper.
Here the bodies stand where they are called. A region without gradients is a mark on its operators; once nothing writes
in place any more, `detach_ungraded` turns the marks into `detach` where a value leaves such a region.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from unbraid.capture._exportable import own_stack
from unbraid.graph.questions import is_float, name_of

# Checks on metadata that the exporter adds: they compute nothing.
_CHECKS = {
    "_assert_tensor_metadata",
    "_assert_scalar",
    "_assert_async",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
}

# For each wrapper that changes nothing but gradients: the place of its body among its arguments, and how many
# arguments come before the body's own.
_WRAPPERS = {
    "wrap_with_set_grad_enabled": (1, 2),
    "wrap": (0, 1),
    "wrap_activation_checkpoint": (0, 1),
    "tag_activation_checkpoint": (0, 1),
    "invoke_subgraph": (0, 2),
}


@dataclass
class Flat:
    """A graph of operators, and those that ran while gradients were off.

    Attributes:
        graph: the operators.
        ungraded: the nodes at which gradients were off.
    """

    graph: fx.Graph = field(default_factory=fx.Graph)
    ungraded: set[fx.Node] = field(default_factory=set)


def flattened(module: fx.GraphModule) -> Flat | None:
    """A copy of a graph with the bodies of its wrappers in their place.

    None where what happens depends on more than the operators: in an autocast region, inside of torch.vmap.
    """
    flat = Flat()
    return flat if _copy(module, flat, {}, graded=True) else None


def marked(graph: fx.Graph) -> Flat:
    """A recorded graph, in which calls that switch gradients stand between the operators."""
    graded, flat = True, Flat(graph)
    for node in list(graph.nodes):
        if name_of(node) == "_set_grad_enabled":
            graded = bool(node.args[0])
            graph.erase_node(node)
        elif not graded and node.op == "call_function":
            flat.ungraded.add(node)
    return flat


def detach_ungraded(flat: Flat) -> None:
    """No gradient leaves a region of torch.no_grad."""
    for node in list(flat.graph.nodes):
        if node not in flat.ungraded or not isinstance(node.meta.get("val"), Tensor) or not is_float(node):
            continue
        outside = [user for user in node.users if user not in flat.ungraded and name_of(user) != "detach"]
        if not outside:
            continue
        with flat.graph.inserting_after(node):
            detached = flat.graph.call_function(torch.ops.aten.detach.default, (node,))
        detached.meta = dict(node.meta)
        for user in outside:
            user.replace_input_with(node, detached)


def _copy(module: fx.GraphModule, flat: Flat, values: dict[fx.Node, Any], *, graded: bool) -> bool:
    for node in module.graph.nodes:
        if node in values or node.op == "get_attr" or name_of(node) in _CHECKS:
            continue
        if node.op == "call_function" and name_of(node) in _WRAPPERS:
            if not _inline(module, node, flat, values, graded=graded):
                return False
            continue
        if node.op == "call_function" and (name_of(node).startswith("wrap_with") or _transforms(node)):
            return False
        for attribute in node.all_input_nodes:
            if attribute.op == "get_attr":
                values[attribute] = _held(module, attribute, flat)
        values[node] = copied = flat.graph.node_copy(node, values.__getitem__)
        if "nn_module_stack" in copied.meta:
            copied.meta["nn_module_stack"] = own_stack(copied.meta["nn_module_stack"])
        if copied.op == "placeholder":
            # A copy of a placeholder named like a function of Python's is given another name: "input_1" for "input".
            copied.name = node.name
        if not graded:
            flat.ungraded.add(copied)
    return True


def _transforms(node: fx.Node) -> bool:
    """Whether a node begins or ends a level of torch.vmap: its operators then mean something else in between."""
    return getattr(node.target, "__module__", None) == "torch._functorch.predispatch"


def _held(module: fx.GraphModule, node: fx.Node, flat: Flat) -> fx.Node:
    """A module that an operator of higher order calls: each call holds its own, so that it moves with the call."""
    held = flat.graph.node_copy(node)
    held.meta["held"] = attribute(module, node)
    return held


def _inline(module: fx.GraphModule, node: fx.Node, flat: Flat, values: dict[fx.Node, Any], *, graded: bool) -> bool:
    place, before = _WRAPPERS[name_of(node)]
    inner = attribute(module, node.args[place])
    graph = getattr(inner, "graph", None)
    if not isinstance(inner, torch.nn.Module) or not isinstance(graph, fx.Graph):
        return False
    body = fx.GraphModule(inner, graph)
    formal = [n for n in body.graph.nodes if n.op == "placeholder"]
    inside: dict[fx.Node, Any] = {
        name: map_arg(argument, values.__getitem__) for name, argument in zip(formal, node.args[before:], strict=True)
    }
    output = next(n for n in body.graph.nodes if n.op == "output")
    inside[output] = None
    if name_of(node) == "wrap_with_set_grad_enabled":
        graded = bool(node.args[0])
    if not _copy(body, flat, inside, graded=graded):
        return False
    results = map_arg(output.args[0], inside.__getitem__)
    if not isinstance(results, list | tuple):
        values[node] = results
        return True
    if any(name_of(user) != "getitem" for user in node.users):
        return False
    values.update({user: results[int(str(user.args[1]))] for user in node.users})
    return True


def attribute(module: torch.nn.Module, node: Any) -> Any:
    """What a get_attr node stands for."""
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value

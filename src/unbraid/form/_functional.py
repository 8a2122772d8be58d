import warnings
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.fx.node import map_arg

from unbraid.form._spelling import spell_out
from unbraid.graph import is_float, name_of, shape_only

# Checks on metadata that the exporter adds: they compute nothing.
_CHECKS = {
    "_assert_tensor_metadata",
    "_assert_scalar",
    "_assert_async",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
}

# In eval mode these hand back their very argument, which their schema does not tell.
_DROPOUT = {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"}
_MAYBE_ALIAS = {*_DROPOUT, "rrelu"}
_IDLE = {*_DROPOUT, "slice"}


def functional(program: ExportedProgram) -> tuple[fx.Graph, ExportedProgram]:
    """The program's graph without side effects: no in-place operator, no check, no statistic that is updated.

    An in-place operator on a tensor that nobody else sees is replaced by its functional twin; where views are involved,
    torch's own functionalisation does the work, at the price of tracing once more.
    """
    graph = _without_wrappers(program)
    if graph is None or not replace_in_place(graph):
        program = _decomposed(program)
        graph = _without_wrappers(program)
        assert graph is not None, "decomposing leaves no wrapper behind"
    tidy(graph)
    return graph, program


def tidy(graph: fx.Graph) -> None:
    """Leave out what has no part in the result, and write what is left in one way."""
    _forget_statistics(graph)
    spell_out(graph)
    _drop_idle(graph)
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in {"placeholder", "output"})


def _decomposed(program: ExportedProgram) -> ExportedProgram:
    with warnings.catch_warnings():
        # torch copies its own tree specs in a way that it has deprecated itself.
        warnings.simplefilter("ignore", FutureWarning)
        return program.run_decompositions({})


def _without_wrappers(program: ExportedProgram) -> fx.Graph | None:
    """A copy of the graph with regions of torch.no_grad spelled out; None where another wrapper is in the way."""
    graph, values = fx.Graph(), dict[fx.Node, Any]()
    ok = _copy(program.graph_module, graph, values)
    return graph if ok else None


def _copy(module: fx.GraphModule, graph: fx.Graph, values: dict[fx.Node, Any]) -> bool:
    for node in module.graph.nodes:
        if node in values or (node.op == "get_attr" and isinstance(_attribute(module, node), fx.GraphModule)):
            continue
        if name_of(node) in _CHECKS:
            continue
        if node.op == "call_function" and name_of(node).startswith("wrap_with"):
            if name_of(node) != "wrap_with_set_grad_enabled" or not _inline(module, node, graph, values):
                return False
            continue
        copied = graph.node_copy(node, values.__getitem__)
        values[node] = copied
    return True


def _inline(module: fx.GraphModule, node: fx.Node, graph: fx.Graph, values: dict[fx.Node, Any]) -> bool:
    enabled, inner_node, *arguments = node.args
    inner = _attribute(module, inner_node)
    formal = [n for n in inner.graph.nodes if n.op == "placeholder"]
    inside = {name: map_arg(argument, values.__getitem__) for name, argument in zip(formal, arguments, strict=True)}
    output = next(n for n in inner.graph.nodes if n.op == "output")
    body = fx.GraphModule(inner, inner.graph)
    if not _copy_body(body, graph, inside):
        return False
    results = map_arg(output.args[0], inside.__getitem__)
    for user in list(node.users):
        if name_of(user) != "getitem":
            return False
        result = results[user.args[1]]
        values[user] = result if enabled else _detached(graph, result)
    return True


def _copy_body(module: fx.GraphModule, graph: fx.Graph, values: dict[fx.Node, Any]) -> bool:
    output = next(n for n in module.graph.nodes if n.op == "output")
    values[output] = None
    done = _copy(module, graph, values)
    del values[output]
    return done


def _detached(graph: fx.Graph, value: fx.Node) -> fx.Node:
    """No gradient leaves a region of torch.no_grad."""
    node = graph.call_function(torch.ops.aten.detach.default, (value,))
    node.meta = dict(value.meta)
    return node


def _attribute(module: torch.nn.Module, node: Any) -> Any:
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value


def replace_in_place(graph: fx.Graph) -> bool:
    """Replace every in-place operator, or return False at the first that cannot be replaced alone."""
    order = {node: number for number, node in enumerate(graph.nodes)}
    for node in reversed(list(graph.nodes)):  # from the last write of a counter to the first
        if _mutates(node) and not node.users and _only_counts(node.args[0]):
            graph.erase_node(node)
    for node in list(graph.nodes):
        if not _mutates(node):
            continue
        base = node.args[0]
        twin = _twin(node)
        if twin is None or _widens(base, node) or not _alone(base, node):
            return False
        node.target = twin
        base.replace_all_uses_with(node, delete_user_cb=lambda user, node=node: order.get(user, 0) > order[node])
    return True


def _widens(base: fx.Node, writer: fx.Node) -> bool:
    """Whether the twin's result would take an operand's wider type, where what is written keeps its own."""
    if name_of(writer) == "copy_":
        return False  # whose twin keeps it, too
    written = base.meta["val"]
    others = [node.meta.get("val") for node in writer.all_input_nodes if is_float(node)]
    return any(torch.result_type(written, other) is not written.dtype for other in others if isinstance(other, Tensor))


def _only_counts(node: Any) -> bool:
    """Whether what is written is a counter that nothing reads: batch norm's number of batches, written at each use."""
    while _mutates(node) and len(node.users) == 1:
        node = node.args[0]
    return bool(node.op == "placeholder" and len(node.users) == 1)


def _mutates(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _twin(node: fx.Node) -> Any:
    name = name_of(node)
    written = [a.name for a in node.target._schema.arguments if a.alias_info and a.alias_info.is_write]  # type: ignore[union-attr]
    if not name.endswith("_") or len(written) != 1:
        return None
    packet = getattr(torch.ops.aten, name[:-1], None)
    return None if packet is None else getattr(packet, node.target._overloadname, None)  # type: ignore[union-attr]


def _alone(base: fx.Node, writer: fx.Node) -> bool:
    """Whether nothing but `base` itself shows the memory that is written."""
    return not _aliases(base) and not any(_aliases(user) for user in base.users if user is not writer)


def _aliases(node: fx.Node) -> bool:
    if node.op != "call_function":
        return node.op == "placeholder"
    if not isinstance(node.target, torch._ops.OpOverload):
        return True
    returns = node.target._schema.returns
    return name_of(node) in _MAYBE_ALIAS or any(r.alias_info and not r.alias_info.is_write for r in returns)


def _forget_statistics(graph: fx.Graph) -> None:
    """In train mode a norm computes with the batch's own statistics: the running ones are only written, never read."""
    for node in graph.nodes:
        if (name_of(node) == "batch_norm" and node.args[5]) or (name_of(node) == "instance_norm" and node.args[5]):
            node.args = (*node.args[:3], None, None, *node.args[5:])
        if name_of(node) == "_native_batch_norm_legit_functional" and node.args[5]:
            # It must be given some: those from before the run, not what another use of the norm has made of them.
            node.args = (*node.args[:3], *map(_before_the_run, node.args[3:5]), *node.args[5:])


def _before_the_run(statistic: Any) -> Any:
    while isinstance(statistic, fx.Node) and name_of(statistic) == "getitem":
        norm, result = statistic.args
        if not isinstance(norm, fx.Node) or name_of(norm) != "_native_batch_norm_legit_functional":
            break
        statistic = norm.args[int(str(result))]  # its results 3 and 4 are what became of its arguments 3 and 4
    return statistic


def _drop_idle(graph: fx.Graph) -> None:
    """Slices that take everything (`x[:, :]`), dropout in eval mode, copies: the same tensor under two names."""
    for node in list(graph.nodes):
        if (name_of(node) in _IDLE and shape_only(node)) or _copies(node):
            node.replace_all_uses_with(node.args[1] if _copies(node) else node.args[0])
            graph.erase_node(node)


def _copies(node: fx.Node) -> bool:
    """Whether a functional copy writes all of a tensor's elements, of one type, over another's."""
    if name_of(node) != "copy" or not isinstance(node.args[1], fx.Node):
        return False
    here, there = node.meta["val"], node.args[1].meta["val"]
    return here.shape == there.shape and here.dtype == there.dtype

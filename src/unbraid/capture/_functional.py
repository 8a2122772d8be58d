"""The exported graph without side effects.

In-place operators on tensors that nothing else shows are replaced by their functional twins; only where views are
involved does torch's functionalisation trace the model once more.
"""

import re
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from unbraid.capture._inlined import Flat, attribute, detach_ungraded, flattened, marked
from unbraid.capture._silenced import unwarned
from unbraid.capture._spelling import spell_out
from unbraid.capture._without_writes import without_writes
from unbraid.graph.operators import Frozen, callee, operator_of
from unbraid.graph.questions import name_of, shape_only, takes_all

# A line of the code that torch generates for the body of a wrapper: it assigns to the name of the node.
_GENERATED = re.compile(r'File "<eval_with_key>[^"]*", line \d+, in forward\n\s*(?P<name>\w+) =')


def functional(program: ExportedProgram) -> tuple[fx.Graph, ExportedProgram]:
    """The program's graph without side effects: no in-place operator, no check, no statistic that is updated.

    Where a part of the model runs under autocast, torch's own functionalisation spells out the casts, at the price of
    tracing once more.
    """
    flat = flattened(program.graph_module)
    if flat is None:
        program = _decomposed(program)
        flat = flattened(program.graph_module)
        assert flat is not None, "decomposing leaves no wrapper behind"
    signature = program.graph_signature
    learned = {*signature.parameters, *signature.user_inputs}
    state = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    fixed = frozenset(name for name, target in state.items() if target not in learned)
    return pure(flat, fixed), program


def pure(flat: Flat, fixed: frozenset[str] = frozenset()) -> fx.Graph:
    """The graph without writes and marks, tidied; `fixed` names the placeholders that have no gradient."""
    flat = without_writes(flat, fixed)
    detach_ungraded(flat)
    tidy(flat.graph)
    return flat.graph


def tidy(graph: fx.Graph) -> None:
    """Leave out what has no part in the result, and write what is left in one way."""
    _forget_statistics(graph)
    spell_out(graph)
    _drop_idle(graph)
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in {"placeholder", "output"})


def _decomposed(program: ExportedProgram) -> ExportedProgram:
    bodies = [module for module in program.graph_module.modules() if isinstance(module, fx.GraphModule)]
    written: dict[str, dict[str, Any]] = {}
    for body in bodies:
        written |= {node.name: node.meta for node in body.graph.nodes}
    for body in bodies:
        _detach_what_leaves_regions(body)
    with unwarned(".*LeafSpec"):  # torch copies its own tree specs in a way that it has deprecated itself
        program = program.run_decompositions({})
    for node in program.graph_module.graph.nodes:
        _write_back_place(node, written)
    return program


def _detach_what_leaves_regions(module: fx.GraphModule) -> None:
    """No gradient leaves a region of torch.no_grad: decomposing forgets such regions, and keeps `detach`.

    A region is the body of a wrapper, or inside an autocast region what runs between two switches.
    """
    detach_ungraded(marked(module.graph))
    for node in module.graph.nodes:
        if name_of(node) == "wrap_with_set_grad_enabled" and not node.args[0]:
            body = attribute(module, node.args[1])
            detach_ungraded(Flat(body.graph, {inner for inner in body.graph.nodes if inner.op == "call_function"}))
            body.recompile()
    module.recompile()


def _write_back_place(node: fx.Node, written: dict[str, dict[str, Any]]) -> None:
    """Give a node of a wrapper's body its place in the model's code: torch notes that of its own generated code."""
    generated = _GENERATED.findall(node.meta.get("stack_trace") or "")
    if generated and generated[-1] in written:
        before = written[generated[-1]]
        node.meta.update({name: before[name] for name in ("stack_trace", "nn_module_stack") if name in before})


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
        if _idle(node) or _copies(node):
            node.replace_all_uses_with(_copied(graph, node) if _copies(node) else node.args[0])
            graph.erase_node(node)


def _idle(node: fx.Node) -> bool:
    """Whether a node hands back its very argument, which its schema does not tell."""
    takes = operator_of(node).freeze is Frozen.DROPOUT or callee(node) is torch.ops.aten.slice
    return takes and shape_only(node)


def _copied(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """What a functional copy gives, in its type and sizes; the operator itself has no derivative."""
    base, written = node.args[0], node.args[1]
    assert isinstance(base, fx.Node)
    assert isinstance(written, fx.Node)
    here, there = node.meta["val"], written.meta["val"]
    with graph.inserting_before(node):
        if here.dtype != there.dtype:
            written = graph.call_function(torch.ops.aten.to.dtype, (written, here.dtype))
            written.meta = {**node.meta, "val": there.to(here.dtype)}
        if here.shape != there.shape:
            written = graph.call_function(torch.ops.aten.expand_as.default, (written, base))
            written.meta = dict(node.meta)
    return written


def _copies(node: fx.Node) -> bool:
    """Whether a node gives what was written over all of a tensor: by a copy, or by a slice that takes everything."""
    if not all(isinstance(argument, fx.Node) for argument in node.args[:2]) or len(node.args) < 2:
        return False
    if name_of(node) == "copy":
        return True
    if name_of(node) != "slice_scatter" or not takes_all(node.args[3:]):
        return False
    here, there = node.meta["val"], node.args[1].meta["val"]  # type: ignore[union-attr]
    return bool(here.shape == there.shape and here.dtype == there.dtype)

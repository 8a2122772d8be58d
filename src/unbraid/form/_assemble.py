"""A captured computation as a form: its blocks are found, or named layers taken for them, and the graph is cut."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import fx, nn

from unbraid.capture import Capture, tied
from unbraid.capture.provenance import printable, scope, source
from unbraid.capture.signature import Sizes, plain_names, sizes
from unbraid.discover import Anatomy, Block, BlockNodes, Dataflow, Trunk, anatomy, cut, find, parameters
from unbraid.discover.kinds import ALL
from unbraid.errors import NotResidualError, Refusal, TraceError
from unbraid.form._form import ResidualForm
from unbraid.form._gradient_sources import modes
from unbraid.form._origin import Origin
from unbraid.graph.state import meta_tensor


def assemble(
    captured: Capture,
    model: nn.Module | None,
    learned: Collection[str],
    layers: Sequence[str] = (),
    skips: Sequence[str] = ALL,
) -> ResidualForm:
    """Find the blocks of a captured computation, or take the named layers for blocks, and cut it there.

    Args:
        captured: what the model computes.
        model: the model, for checks; None where it is not at hand.
        learned: the names of its parameters.
        layers: the layers of a chain; empty to find residual blocks.
        skips: the kinds of skip connections to look for.
    """
    title = type(model).__name__ if model is not None else "the saved model"
    if not layers:
        flow = _dataflow(captured, learned)
        finding = find(flow, captured.constant, skips)
        if not finding.blocks:
            raise _not_residual(title, finding.refusals)
        return _form(captured, anatomy(finding.flow, finding.blocks), model, title, skips, refusals=finding.refusals)
    flow = _dataflow(captured, learned)
    layer_nodes = tuple(_layer(flow, captured.graph, name) for name in layers)
    form = _form(
        captured,
        Anatomy.of_layers(_dataflow(captured, learned), layer_nodes),
        model,
        title,
        skips,
        layers=tuple(layers),
    )
    named = zip(form.blocks, map(printable, layers), strict=True)
    return replace(form, blocks=tuple(replace(block, name=name, branches=(name,)) for block, name in named))


def _form(
    captured: Capture,
    parts: Anatomy,
    model: nn.Module | None,
    title: str,
    skips: Sequence[str],
    *,
    refusals: tuple[Refusal, ...] = (),
    layers: tuple[str, ...] = (),
) -> ResidualForm:
    called = plain_names(node for node in captured.graph.nodes if node.name not in captured.names)
    nodes = {node.name: node for node in captured.graph.nodes}
    outputs = [nodes[stream] for stream in captured.signature.streams() if nodes[stream] in parts.flow.carries]
    end = parts.stream(outputs[0]) if outputs else None
    graph = cut(captured, parts, end)
    graph = replace(graph, streams={s: replace(x, shape=called(x.shape)) for s, x in graph.streams.items()})
    if end is None or graph.carried.isdisjoint(graph.outputs):
        raise TraceError(f"{title}: no output carries data from an input; there is nothing to explain.")
    learned = parameters(graph, parts.parents, {captured.names[name] for name in parts.flow.learned}, tied(model))
    operands = tuple(map(_operands, parts.blocks))
    return ResidualForm(
        graph=graph,
        blocks=tuple(_block(captured, parts, number, called, learned) for number in parts.top_level),
        trunks=tuple(_trunk(parts, chained, called) for chained in parts.trunks),
        state=captured.state,
        learned=frozenset(captured.names[name] for name in parts.flow.learned),
        signature=captured.signature.renamed(called),
        end=end.name,
        dtype=end.meta["val"].dtype,
        tracer=captured.tracer,
        notes=captured.notes,
        refusals=refusals,
        origin=Origin(
            model,
            captured.program,
            layers,
            captured.graph,
            captured.names,
            operands[: len(parts.top_level)],
            tied=tied(model),
            computed=frozenset(captured.state) - _saved(model, captured),
            skips=tuple(skips),
            modes=() if model is None else modes(model),
        ),
    )


def _block(
    captured: Capture,
    parts: Anatomy,
    number: int,
    called: Callable[[Sizes], Sizes],
    learned: Mapping[int, frozenset[str]],
) -> Block:
    nodes = parts.blocks[number]
    name, branches = parts.names[number]
    inner = [other for other, (outer, _) in parts.parents.items() if outer == number]
    return Block(
        index=number,
        name=name,
        skip=nodes.kind,
        join=nodes.join,
        branches=branches,
        after=parts.after(number),
        nested=tuple(_block(captured, parts, other, called, learned) for other in sorted(inner)),
        parent=parts.parents.get(number),
        trunk=parts.trunk_of(number),
        shape=called(sizes(nodes.add.meta["val"])),
        parameters=sum(meta_tensor(captured.state, parameter).numel() for parameter in learned[number]),
        source=source(nodes.add),
    )


def _trunk(parts: Anatomy, chained: Sequence[int], called: Callable[[Sizes], Sizes]) -> Trunk:
    first = parts.blocks[chained[0]]
    source = first.skip if first.skip is not None and first.kind == "identity" else first.fork
    return Trunk(tuple(chained), called(sizes(parts.blocks[chained[-1]].add.meta["val"])), source.name)


def _saved(model: nn.Module | None, captured: Capture) -> set[str]:
    return set(captured.state) if model is None else set(model.state_dict())


def _dataflow(captured: Capture, learned: Collection[str]) -> Dataflow:
    placeholders = [name for name, target in captured.names.items() if target in learned]
    return Dataflow(captured.graph, captured.names, placeholders)


def _not_residual(title: str, refusals: tuple[Refusal, ...]) -> NotResidualError:
    seen = Counter((refusal.where, refusal.reason) for refusal in refusals)
    shown = [f"  {where}: {reason} ({times}x)" for (where, reason), times in seen.most_common(5)]
    more = [f"  and {len(seen) - 5} more kinds"] if len(seen) > 5 else []
    return NotResidualError(
        "\n".join(
            [
                f"{title}: no residual addition among its {len(refusals)} additions of data.",
                *shown,
                *more,
                "  A plain network is cut at layers of your choice: unbraid.chain(model, args, layers=[...]).",
            ]
        ),
        refusals=refusals,
    )


def _operands(block: BlockNodes) -> tuple[str | None, tuple[str, ...], str]:
    """The names of a block's skip, branches and sum in the captured graph."""
    return block.skip.name if block.skip else None, tuple(node.name for node in block.branches), block.add.name


def _layer(flow: Dataflow, graph: fx.Graph, name: str) -> BlockNodes:
    """Give a module's result a sum of its own: in h = f(h') there is nothing to add it to."""
    path = tuple(name.split("."))
    inside = dict.fromkeys(n for n in graph.nodes if scope(n)[: len(path)] == path and n in flow.carries)
    entering: dict[fx.Node, None] = {}
    for node in inside:
        entering |= dict.fromkeys(read for read in flow.data(node) if read not in inside)
    leaving = [node for node in inside if not node.users.keys() <= inside.keys()]
    if len(entering) != 1 or len(leaving) != 1:
        raise TraceError(
            f"chain: layer {name!r} must take one tensor that carries data and give one; "
            f"{len(entering)} enter and {len(leaving)} leave. Name other layers."
        )
    (end,) = leaving
    with graph.inserting_after(end):
        total = graph.call_function(torch.ops.aten.alias.default, (end,))
    total.meta = dict(end.meta)
    # Where the layer's result is the model's output, the signature knows it by name.
    total.name, end.name = end.name, total.name
    flow.carries.add(total)
    flow.reached.add(total)
    end.replace_all_uses_with(total, delete_user_cb=lambda user: user is not total)
    return BlockNodes(next(iter(entering)), total, None, (end,), "none")

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from unbraid._modes import off_meta, outside_autograd_modes
from unbraid.errors import NotResidualError, Refusal, TraceError
from unbraid.form._alone import alone
from unbraid.form._anatomy import Anatomy, anatomy
from unbraid.form._bare import bare
from unbraid.form._block import Block
from unbraid.form._cache import without_cache
from unbraid.form._capture import Capture, Tracer, capture
from unbraid.form._checkpoints import plain_checkpoints
from unbraid.form._cut import cut
from unbraid.form._dataflow import Dataflow
from unbraid.form._find import find
from unbraid.form._form import ResidualForm
from unbraid.form._found import Found
from unbraid.form._gradients import modes
from unbraid.form._meta import computed, on_meta
from unbraid.form._parameters import parameters
from unbraid.form._place import printable, scope, source
from unbraid.form._signature import Sizes, as_call, plain_names, sizes
from unbraid.form._trees import tensors_in
from unbraid.form._verify import Origin
from unbraid.form._weights import tied
from unbraid.walk import like


@outside_autograd_modes
def trace(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tolerance: float | None = None,
    tracer: Tracer = "auto",
    device: str | None = None,
) -> ResidualForm:
    """Find every residual connection of a model, cut it into its residual form, and check the result.

    The model is neither changed nor hooked: its computation is captured by torch.export, and the additions are found in
    the data flow of the captured graph.

    Args:
        model: any module that maps tensors to tensors; its training flag is honoured.
        args: its positional inputs, as for torch.export.export; a bare tensor means (tensor,).
        kwargs: its keyword inputs.
        tolerance: the largest relative error to accept between form and model; by default that of the trunk's type:
            1e-12 in float64, 1e-5 in float32, 2e-2 below.
        tracer: how the computation is captured. "export" leaves sizes free; "dispatch" records one run, for code that
            torch.export cannot follow: the form then holds for inputs of these sizes at which the model's code takes
            the same way, and says so where it does not; "auto" tries them in this order.
        device: "meta" traces the structure alone: no memory for weights, nothing run, so nothing checked. Parameters
            of the form are empty until `form.load(folder)` reads them; buffers are the model's. See `empty_weights`.

    Returns:
        The form, with its measured `error`.

    Raises:
        TraceError: the computation cannot be captured.
        NotResidualError: it holds no residual addition.
        InexactError: the form does not follow the model.
    """
    positional, keywords = as_call(args, kwargs)
    if device not in (None, "meta"):
        raise ValueError(f'trace: device is "meta", or None for where the model is; {device!r} came. See form.to(...).')
    model, taken_off = bare(model)
    keywords, passed = without_cache(model, positional, keywords)
    with alone(), plain_checkpoints(), off_meta(*_tensors(model, positional, keywords)):
        if device is None:
            captured = capture(model, positional, keywords, tracer)
        else:
            captured = capture(*on_meta(model, positional, keywords), tracer, free=True)
            captured = replace(captured, state=computed(model, captured.state))
        form = assemble(captured, model, _learned(model))
        form = replace(form, tolerance=tolerance, notes=(*form.notes, *taken_off, *passed))
        return _checked(form, positional, keywords)


@outside_autograd_modes
def chain(
    model: nn.Module, args: Any, kwargs: Mapping[str, Any] | None = None, *, layers: Sequence[str]
) -> ResidualForm:
    """The form of a plain network, h_k = f_k(h_{k−1}) (Equation 11.1): one path, of length K.

    Args:
        model: any module.
        args: its positional inputs; a bare tensor means (tensor,).
        kwargs: its keyword inputs.
        layers: the names of the modules that are f_1 to f_K, in order; a single name stands for its children.

    Returns:
        The form; each of its blocks has skip "none".

    Raises:
        TraceError: the computation cannot be captured, or a name is unknown or no stage of the data flow.
    """
    positional, keywords = as_call(args, kwargs)
    model, taken_off = bare(model)
    names = _children(model, layers)
    keywords, passed = without_cache(model, positional, keywords)
    with alone(), plain_checkpoints(), off_meta(*_tensors(model, positional, keywords)):
        form = assemble(capture(model, positional, keywords), model, _learned(model), names)
        return _checked(replace(form, notes=(*form.notes, *taken_off, *passed)), positional, keywords)


def assemble(
    captured: Capture, model: nn.Module | None, learned: Collection[str], layers: Sequence[str] = ()
) -> ResidualForm:
    """Find the blocks of a captured computation, or take the named layers for blocks, and cut it there.

    Args:
        captured: what the model computes.
        model: the model, for checks; None where it is not at hand.
        learned: the names of its parameters.
        layers: the layers of a chain; empty to find residual blocks.
    """
    title = type(model).__name__ if model is not None else "the saved model"
    if not layers:
        flow = _dataflow(captured, learned)
        finding = find(flow, captured.constant)
        if not finding.blocks:
            raise _not_residual(title, finding.refusals)
        return _form(captured, anatomy(finding.flow, finding.blocks), model, title, refusals=finding.refusals)
    flow = _dataflow(captured, learned)
    found = tuple(_layer(flow, captured.graph, name) for name in layers)
    form = _form(captured, Anatomy(_dataflow(captured, learned), found, {}), model, title, layers=tuple(layers))
    named = zip(form.blocks, map(printable, layers), strict=True)
    return replace(form, blocks=tuple(replace(block, name=name, branches=(name,)) for block, name in named))


def _form(
    captured: Capture,
    parts: Anatomy,
    model: nn.Module | None,
    title: str,
    *,
    refusals: tuple[Refusal, ...] = (),
    layers: tuple[str, ...] = (),
) -> ResidualForm:
    called = plain_names(node for node in captured.graph.nodes if node.name not in captured.names)
    graph = cut(captured, parts)
    graph = replace(graph, streams={s: replace(x, shape=called(x.shape)) for s, x in graph.streams.items()})
    carried = next((stream for stream in graph.outputs if stream in graph.carried), None)
    if carried is None:
        raise TraceError(f"{title}: no output carries data from an input; there is nothing to explain.")
    last = parts.last(next(node for node in captured.graph.nodes if node.name == carried))
    end = parts.ends[max(parts.top_level) if last is None else last]
    learned = parameters(graph, parts.parents, {captured.names[name] for name in parts.flow.learned}, tied(model))
    operands = tuple(
        (b.skip.name if b.skip else None, tuple(f.name for f in b.branches), b.add.name) for b in parts.blocks
    )
    return ResidualForm(
        graph=graph,
        blocks=tuple(_block(captured, parts, number, called, learned) for number in parts.top_level),
        state=captured.state,
        learned=frozenset(captured.names[name] for name in parts.flow.learned),
        signature=captured.signature.renamed(called),
        stream=end.name,
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
    found = parts.blocks[number]
    name, branches = parts.names[number]
    inner = [other for other, (outer, _) in parts.parents.items() if outer == number]
    return Block(
        index=number,
        name=name,
        skip=found.kind,
        branches=branches,
        after=parts.after(number),
        nested=tuple(_block(captured, parts, other, called, learned) for other in sorted(inner)),
        parent=parts.parents.get(number),
        shape=called(sizes(found.add.meta["val"])),
        parameters=sum(like(captured.state, parameter).numel() for parameter in learned[number]),
        source=source(found.add),
    )


def _checked(form: ResidualForm, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ResidualForm:
    """On the meta device there is nothing to run: structure only."""
    if form.origin is not None:
        form = replace(form, origin=replace(form.origin, example=(args, kwargs)))
    if any(tensor.is_meta for tensor in form.state.values()):
        return form
    checked = form.verify(args, kwargs)
    notes = (*form.notes, f"gradients were not compared: {checked.unchecked}") if checked.unchecked else form.notes
    notes = (*notes, *filter(None, [checked.otherwise]))
    silent = tuple(form.blocks[k] for k in checked.silent)
    return replace(form, error=checked.error, silent=silent, notes=notes)


def _saved(model: nn.Module | None, captured: Capture) -> set[str]:
    return set(captured.state) if model is None else set(model.state_dict())


def _tensors(model: nn.Module, *given: Any) -> list[Tensor]:
    return [*model.parameters(), *model.buffers(), *tensors_in(given)]


def _learned(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters(remove_duplicate=False)}


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


def _children(model: nn.Module, layers: Sequence[str]) -> list[str]:
    """The names themselves, or the members of one container."""
    names = [layers] if isinstance(layers, str) else list(layers)
    known = {name for name, _ in model.named_modules()}
    if unknown := [name for name in names if name not in known]:
        close = difflib.get_close_matches(unknown[0], known, n=3)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise TraceError(f"chain: {type(model).__name__} has no module {unknown[0]!r}.{hint}")
    if len(names) == 1:
        members = [f"{names[0]}.{name}" for name, _ in model.get_submodule(names[0]).named_children()]
        names = members or names
    return names


def _layer(flow: Dataflow, graph: fx.Graph, name: str) -> Found:
    """Give a module's result a sum of its own: in h = f(h') there is nothing to add it to."""
    path = tuple(name.split("."))
    inside = [n for n in graph.nodes if scope(n)[: len(path)] == path and n in flow.carries]
    entering = {n: None for node in inside for n in flow.data(node) if n not in set(inside)}
    leaving = [n for n in inside if any(user not in set(inside) for user in n.users)]
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
    return Found(next(iter(entering)), total, None, (end,), "none")

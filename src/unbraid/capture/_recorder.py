"""The second tracer: the operations of one real run, for models whose code torch.export cannot follow."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import traceback as notes
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from unbraid.capture._exportable import titles
from unbraid.capture._operator_lines import noting_lines
from unbraid.capture._recorded_graph import results, written_down
from unbraid.capture._side_run import Draws
from unbraid.capture._untouched import untouched
from unbraid.capture.signature import Guard, Signature, TensorSpec, positions, sizes
from unbraid.capture.trees import flatten, holds_tensors, mapped, tensors_in
from unbraid.errors import TraceError

# By these Python code learns a value that a tensor holds.
_READS: set[Any] = {
    torch.is_nonzero, Tensor.is_nonzero, Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__array__,
    Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__complex__, Tensor.__index__,
    torch.equal, Tensor.equal, torch.allclose, Tensor.allclose,
}  # fmt: skip


@dataclass(frozen=True)
class Recording:
    """A model's run on given inputs as a graph of operators without side effects.

    Attributes:
        graph: the operators; parameters, buffers, constants and inputs are placeholders.
        state: the tensors of the former, by name.
        names: the name in `state` of each placeholder that stands for one.
        signature: how calls are matched with the other placeholders, and which values the way taken depends on.
    """

    graph: fx.Graph
    state: dict[str, Tensor]
    names: dict[str, str]
    signature: Signature


def record(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Recording:
    """Run a model once and write down its operations, with all sizes as they are.

    Raises:
        TraceError: the model's output holds something that is neither a tensor nor a constant.
    """
    leaves, structure = flatten((args, dict(kwargs)))
    given = [number for number, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    state = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    learned = sum(1 for _ in model.parameters())
    output, reads = None, list[Tensor]()

    def forward(*tensors: Tensor) -> list[Tensor]:
        nonlocal output
        filled = list(leaves)
        for number, tensor in zip(given, tensors[len(state) :], strict=True):
            filled[number] = tensor
        positional, keywords = structure.filled(iter(filled))
        reads.clear()
        with _scopes(model), _Reads(reads), noting_lines():
            parts = dict(zip(state, tensors, strict=False))
            output = torch.func.functional_call(model, parts, positional, keywords)
        return [*tensors_in(output), *reads]

    @contextmanager
    def apart() -> Iterator[None]:
        with untouched(model, leaves, values) as aside, aside.drawing(Draws()):
            yield

    values = [*(tensor.clone() for tensor in state.values()), *(leaves[number].detach() for number in given)]
    graded = {n for n in range(len(values)) if n < learned or n >= len(state)}
    graph, constants, sized = written_down(forward, values, graded, apart)
    state |= constants
    placeholders = _named(graph, [*list(state)[: len(values) - len(given)], *titles(model, args, kwargs), *constants])
    for node, number in zip(placeholders[len(values) - len(given) :], given, strict=False):
        leaves[number] = TensorSpec(node.name, sizes(leaves[number]), str(leaves[number].dtype))
    inputs = {leaf.stream for leaf in leaves if isinstance(leaf, TensorSpec)}
    names = dict(zip([n.name for n in placeholders if n.name not in inputs], state, strict=True))
    ends = results(graph)
    positional, keywords = structure.filled(iter(leaves))
    signature = _signature(model, positional, keywords, output, ends)
    read_nodes = ends[len(tensors_in(output)) :]
    return Recording(graph, state, names, replace(signature, decisions=_decisions(read_nodes, reads, sized)))


class _Reads(TorchFunctionMode):
    """Notes the tensors whose values the model's code reads: the way that it takes may depend on them."""

    def __init__(self, reads: list[Tensor]) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS:
            self.reads.extend(leaf for leaf in pytree.tree_leaves(args) if isinstance(leaf, Tensor))
        return func(*args, **(kwargs or {}))


@contextmanager
def _scopes(model: nn.Module) -> Iterator[None]:
    """Note at each operator the module that calls it, as the exporter does; a module's second call ends in "@1"."""
    paths = {module: path for path, module in model.named_modules()}
    calls: Counter[nn.Module] = Counter()
    inside: list[dict[str, tuple[str, str]]] = [{}]

    thread = get_ident()  # torch keeps these hooks for all threads

    def enter(module: nn.Module, _: Any) -> None:
        if get_ident() != thread:
            return
        again = f"@{calls[module]}" if calls[module] else ""
        calls[module] += 1
        path = paths.get(module, "") + again
        inside.append({**inside[-1], path: (path, type(module).__qualname__)})
        notes.current_meta["nn_module_stack"] = inside[-1]

    def leave(*_: Any) -> None:
        if get_ident() == thread:
            inside.pop()
            notes.current_meta["nn_module_stack"] = inside[-1]

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        notes.current_meta.pop("nn_module_stack", None)


def _named(graph: fx.Graph, titles: list[str]) -> list[fx.Node]:
    """The placeholders, renamed after what they stand for."""
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for node, title in zip(placeholders, titles, strict=True):
        node._rename(title.replace(".", "_"))
    return placeholders


def _signature(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, results: list[fx.Node]
) -> Signature:
    names, by_position = positions(model, args)
    unread = iter(results)

    def expected(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return TensorSpec(next(unread).name, sizes(leaf), str(leaf.dtype))
        if holds_tensors(leaf):
            raise TraceError(f"{type(model).__name__} returns a {type(leaf).__name__} of tensors, which has no order.")
        return leaf

    inputs = {**dict(zip(by_position, args, strict=True)), **kwargs}
    return Signature(names, inputs, mapped(expected, output))


def _decisions(nodes: list[fx.Node], reads: list[Tensor], sized: list[tuple[int, ...]]) -> tuple[Guard, ...]:
    """What the model's code read from tensors in the recorded run, and the sizes that came of values."""
    read = [Guard(n.name, tuple(t.flatten().tolist()), tuple(t.shape)) for n, t in zip(nodes, reads, strict=False)]
    sizes = zip(nodes[len(reads) :], sized, strict=True)
    return (*read, *(Guard(node.name, None, shape) for node, shape in sizes))

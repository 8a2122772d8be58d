"""Whether every sum that a form takes for a block's is the model's own, and how large its operands are.

Where the captured graph adds a block's operands and nothing else, the sum is theirs whatever the numbers:

    add_7 = aten.add(add_5, linear_9)           block 3: skip add_5, branches (linear_9,), sum add_7

That is read from the graph. Where a sum is written in another way, as a gate, with a factor, into a part of a tensor,
the graph is run as it was before the cut, and its sum compared with that of the operands.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from unbraid.form._compared import uncut
from unbraid.form._core import Form
from unbraid.form._origin import Operands, Origin
from unbraid.form._second_input import few_examples
from unbraid.graph.operators import callee
from unbraid.results import sum_error

# For each block the error of its sum, and how large its smallest branch is beside its skip.
Additions: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]


class StreamSizes:
    """The largest number in each operand of a block, noted while a form runs."""

    def __init__(self, origin: Origin) -> None:
        self._wanted = {name for skip, branches, _ in origin.operands for name in (skip, *branches)}
        self._sizes: dict[str | None, float] = {}

    def see(self, stream: str, value: Any) -> None:
        """Note a stream, if it is an operand."""
        if stream in self._wanted:
            self._sizes[stream] = _size(value)

    def ratios(self, origin: Origin) -> tuple[float, ...] | None:
        """‖branch‖∞ / ‖skip‖∞ for the smallest branch of each block; None where the form has not all operands."""
        if not self._sizes.keys() >= self._wanted - {None}:
            return None
        return tuple(_ratio(operands, self._sizes) for operands in origin.operands)


def additions_of(
    form: Form, origin: Origin, args: tuple[Any, ...], kwargs: dict[str, Any], sizes: StreamSizes
) -> Additions:
    """The additions as the graph tells them; otherwise at two examples.

    They are looked at on all examples where the model counts on more than two, as on a row that it names.
    """
    ratios = sizes.ratios(origin)
    nodes = {node.name: node for node in origin.graph.nodes}
    if ratios is not None and all(_adds_alone(nodes, operands) for operands in origin.operands):
        return (0.0,) * len(ratios), ratios
    few, named = few_examples(form, args, kwargs)
    try:
        return run_uncut(form, origin, form.inputs(few, named))
    except (RuntimeError, IndexError):
        return run_uncut(form, origin, form.inputs(args, kwargs))


def run_uncut(form: Form, origin: Origin, inputs: Mapping[str, Any]) -> Additions:
    """Look at every addition where the model makes it."""
    named: set[str | None] = set()
    for skip, branches, total in origin.operands:
        named |= {skip, *branches, total}
    values = uncut(form, origin, inputs, {name for name in named if name is not None})
    sums = {node.name: node for node in origin.graph.nodes}
    errors, ratios = [], []
    for operands in origin.operands:
        skip, branches, total = operands
        whole = values[total]
        names = [name for name in (skip, *branches) if name is not None]
        if callee(sums[total]) is torch.ops.aten.cat:
            errors.append(0.0)  # it computes nothing
        else:
            parts = [values[name].to(whole.dtype).expand(whole.shape) for name in names]
            errors.append(sum_error(torch.stack(parts), whole))
        present = {name: _size(values[name]) for name in names}
        ratios.append(_ratio(operands, present))
    return tuple(errors), tuple(ratios)


def _adds_alone(nodes: Mapping[str, fx.Node], operands: Operands) -> bool:
    """Whether a sum in the graph is made of additions alone, without a factor, of each operand once."""
    skip, branches, total = operands
    expected = sorted(name for name in (skip, *branches) if name is not None)
    met: list[str] = []
    unread: list[Any] = [*_summands(nodes[total])]
    while unread:
        node = unread.pop()
        if isinstance(node, fx.Node) and node.name in expected:
            met.append(node.name)
            continue
        summands = _summands(node)
        if not summands or len(met) > len(expected):
            return False
        unread += summands
    return sorted(met) == expected


def _summands(node: Any) -> tuple[Any, ...]:
    """The operands of a plain addition or of a concatenation; none where it has a factor, or is another operator."""
    if isinstance(node, fx.Node) and callee(node) is torch.ops.aten.cat:
        tensors: Any = node.args[0]  # what is concatenated is added to zeros
        return tuple(tensors)
    plain = isinstance(node, fx.Node) and callee(node) is torch.ops.aten.add and len(node.args) == 2 and not node.kwargs
    return node.args if plain else ()


def _ratio(operands: Operands, sizes: Mapping[Any, float]) -> float:
    skip, branches, _ = operands
    size = sizes[skip] if skip is not None else 1.0
    return min(sizes[name] for name in branches) / size if size else 1.0


def _size(tensor: Tensor) -> float:
    return tensor.abs().max().item() if tensor.numel() else 0.0

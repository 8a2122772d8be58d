"""Which results share memory with an argument, as views do, and some operators now and then (reshape, to, dropout).

Schemas say what may happen, strides decide what does: so the operator is run without memory, on the meta device, at the
traced sizes and strides. Norms and convolutions, which give memory of their own whatever the strides, are not.
"""

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from unbraid.graph.operators import Kind, operator_of

_COMPUTED = {Kind.CONVOLUTION, Kind.NORM}


class Unknown(Exception):  # noqa: N818  (no error: an answer that cannot be had)
    """The operator cannot be run without memory."""


def shares(node: fx.Node) -> fx.Node | None:
    """The argument with which an operator's result shares memory."""
    tensors = [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), Tensor)]
    if not isinstance(node.target, torch._ops.OpOverload) or not tensors or operator_of(node).kind in _COMPUTED:
        return None
    try:
        result, given = tried(node, node.target)
    except Unknown:
        first = node.target._schema.returns[0] if node.target._schema.returns else None
        return tensors[0] if first is not None and first.alias_info is not None else None
    memory = {leaf.untyped_storage()._cdata for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)}
    return next((n for n in tensors if given[n].untyped_storage()._cdata in memory), None)


def same_object(node: fx.Node, argument: fx.Node) -> bool:
    """Whether an operator hands back its very argument: `contiguous` of what is so, dropout in eval mode."""
    try:
        result, given = tried(node, node.target)
    except Unknown:
        return False
    return result is given.get(argument)


def tried(node: fx.Node, target: Any, kwargs: dict[str, Any] | None = None) -> tuple[Any, dict[fx.Node, Tensor]]:
    """An operator's result on the meta device at a node's arguments, and what stood for each of these.

    Raises:
        Unknown: it cannot be run there, or a size depends on values.
    """
    try:
        given = {n: _stand_in(n.meta["val"]) for n in node.all_input_nodes if isinstance(n.meta.get("val"), Tensor)}
        device = next((n.meta["val"].device for n in given), None)

        def of(argument: Any) -> Any:
            if isinstance(argument, fx.Node):
                return given[argument] if argument in given else _number(argument.meta["val"])
            if isinstance(argument, torch.device):
                if argument != device:
                    raise Unknown
                return torch.device("meta")
            return argument

        arguments, named = pytree.tree_map_only(
            (fx.Node, torch.device), of, (node.args, node.kwargs if kwargs is None else kwargs)
        )
        with torch.no_grad():
            return target(*arguments, **named), given
    except Exception as error:
        raise Unknown from error


def _stand_in(value: Tensor) -> Tensor:
    return torch.empty_strided(
        [_number(size) for size in value.shape], [_number(s) for s in value.stride()], dtype=value.dtype, device="meta"
    )


def _number(value: Any) -> Any:
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return value.node.hint if value.node.has_hint() else value.node.require_hint()
    if isinstance(value, list | tuple):
        return [_number(item) for item in value]
    return value

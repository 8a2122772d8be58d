"""For each operator that writes the one that does not, found by torch's own schemas."""

from typing import Any

import torch

# Their functional twins have names of their own.
_NAMED = {"normal_": "normal_functional"}

# They give a tensor other memory, which is no value that another operator could return.
_MEMORY = {"set_", "resize_", "resize_as_", "resize_as_sparse_"}


def mutates(target: Any) -> bool:
    """Whether an operator writes one of its arguments."""
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def written(target: torch._ops.OpOverload) -> list[str]:
    """The names of the arguments that an operator writes."""
    return [a.name for a in target._schema.arguments if a.alias_info is not None and a.alias_info.is_write]


def twin(target: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """The operator that returns what this one writes: add for add_, and for add with out=; None where there is none.

    Overloads are paired by the types of their arguments, for their names differ: pow_.Scalar is pow.Tensor_Scalar.
    """
    name = target._schema.name.split("::")[1]
    space = getattr(torch.ops, target.namespace)
    outs = {a.name for a in target._schema.arguments if a.kwarg_only and a.name in written(target)}
    known = name if outs else _NAMED.get(name, name[:-1] if name.endswith("_") else None)
    packet = None if known is None or name in _MEMORY else getattr(space, known, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket):
        return None
    wanted = _types(target, without=outs)
    overloads = [getattr(packet, overload) for overload in packet.overloads()]  # type: ignore[no-untyped-call]
    fitting = [o for o in overloads if not mutates(o) and _types(o) == wanted and len(o._schema.returns) == 1]
    same = [o for o in fitting if o._overloadname == target._overloadname]
    return next(iter((*same, *fitting)), None)


def defaults(target: torch._ops.OpOverload, other: torch._ops.OpOverload) -> dict[int, Any]:
    """What an operator takes where nothing is given, by the argument's place, and its twin does not: bernoulli_'s p."""
    pairs = enumerate(zip(target._schema.arguments, other._schema.arguments, strict=False))
    return {
        place: mine.default_value
        for place, (mine, its) in pairs
        if mine.has_default_value() and not its.has_default_value()
    }


def _types(target: torch._ops.OpOverload, without: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    return [str(a.type) for a in target._schema.arguments if a.name not in without]

"""What an operator does to the data that flow through it: the questions that all others ask of the table's rows.

A row says what an operator does whatever its arguments are; a question is asked of a node, whose arguments may decide:
dropout in eval mode, a slice that takes everything, a division that rounds.
"""

from collections.abc import Collection, Sequence
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, fx

from unbraid.graph._operator_row import OPAQUE, Frozen, Holds, Kind, Operator
from unbraid.graph._operator_table import LATER, TABLE

# The name spaces of torch's own operators. What others register may bear any name and compute anything.
_TORCHS_OWN = frozenset(
    """aten prim prims higher_order _c10d_functional _c10d_functional_autograd c10d _dtensor _native _quantized
    debugprims export inductor inductor_prims mkl mkldnn mkldnn_prepacked onednn profiler quantization quantized
    quantized_decomposed rngprims sparse static_runtime symm_mem torch_attn""".split()
)


def operator_of(node: fx.Node) -> Operator:
    """The row of a node's operator in the table; that of an opaque one where there is none."""
    row = TABLE.get(callee(node))
    if row is None and isinstance(node.target, torch._ops.OpOverload):
        return LATER.get(node.target._schema.name, OPAQUE)
    return row or OPAQUE


def callee(node: fx.Node) -> Any:
    """What a node calls, whichever overload of it: the key of its row."""
    return node.target.overloadpacket if isinstance(node.target, torch._ops.OpOverload) else node.target


def foreign(node: fx.Node) -> str:
    """The name space of another library's operator, which says nothing by its name; empty where it is torch's own."""
    space = node.target.namespace if isinstance(node.target, torch._ops.OpOverload) else ""
    return "" if space in _TORCHS_OWN else space


def name_of(node: fx.Node) -> str:
    """The operator's name without overload, and without torch's own name spaces: "add", "getitem", "mine::add"."""
    if isinstance(node.target, torch._ops.OpOverload):
        name = node.target._schema.name
        return name if foreign(node) else name.split("::")[1]
    return getattr(node.target, "__name__", str(node.target))


# In the meta of a node that `discover` has put behind a skip: a detached gate, or zeros that have a gate's derivative.
# At a given input both are constants. The value says which: "gate", "derivative", or what is held "beside" that one.
HELD = "unbraid_held"


def shape_only(node: fx.Node) -> bool:
    """Whether the operator moves elements and computes nothing; dropout computes nothing in eval mode."""
    row = operator_of(node)
    if row.freeze is Frozen.DROPOUT:
        return not (len(node.args) > 2 and node.args[2])
    if callee(node) is torch.ops.aten.slice:
        return takes_all(node.args[2:])
    return row.kind is Kind.MOVES


def mixing(node: fx.Node) -> bool:
    """Whether the operator makes an element from several: a product of matrices, a convolution, a norm, a softmax."""
    return not shape_only(node) and operator_of(node).mixing


class Carrier(IntEnum):
    """How an operator carries an operand, with all else held at its value: the smaller, the stronger."""

    SHAPE = 0  # it moves all of the elements
    PICK = 1  # it takes some of them, or puts them among others
    SCALED = 2  # it multiplies each by a number, or a norm's held scale
    GATED = 3  # it multiplies each by other data, which are held
    MIXING = 4  # it is affine, or a maximum, and makes an element from several


def carrier(node: fx.Node, data: Sequence[fx.Node], *, held: bool = True) -> Carrier | None:
    """How an operator carries the one operand that carries data; None if it does not.

    Args:
        node: a call of an operator.
        data: those of its arguments that carry data.
        held: whether a norm counts, whose scale depends on the data, as if that scale were held.
    """
    row = operator_of(node)
    if shape_only(node):
        return Carrier.SHAPE
    if not affine(node, data, held=held) or row.looks_up:
        return None
    if row.kind is Kind.PICKS:
        return Carrier.PICK
    return Carrier.SCALED if row.kind is Kind.NORM or not row.mixing else Carrier.MIXING


def affine(node: fx.Node, data: Sequence[fx.Node], *, held: bool = True) -> bool:
    """Whether the operator is affine, or a maximum, in the one operand that carries data; see `carrier`."""
    return shape_only(node) or (len(data) == 1 and jointly_affine(node, data, held=held))


def jointly_affine(node: fx.Node, data: Sequence[fx.Node], *, held: bool = True) -> bool:
    """Whether the operator is affine in all of its operands that carry data, taken together."""
    if shape_only(node):
        return True
    row = operator_of(node)
    if not data or (row.holds is Holds.SCALE and not held) or not linear_variant(node):
        return False
    return row.affine_in(places_of(node, data))


_SUMS = frozenset({"sum", "mean", "add", "amax", "amin"})
_REDUCING = frozenset(
    getattr(torch.ops.aten, name) for name in ("scatter", "scatter_reduce", "index_reduce", "segment_reduce")
)


def linear_variant(node: fx.Node) -> bool:
    """Whether an option of the operator leaves it affine: a division that rounds is not, nor a product at places."""
    reduces = callee(node) in _REDUCING
    options = [*node.args[1:], *node.kwargs.values()] if reduces else node.kwargs.values()
    named = {option for option in options if isinstance(option, str)}
    return named <= _SUMS if reduces else not named & {"floor", "trunc"}


def places_of(node: fx.Node, data: Collection[fx.Node]) -> set[int]:
    """The places of an operator's arguments, named ones included, at which some tensors stand."""
    arguments, row = dict(enumerate(node.args)), operator_of(node)
    if node.kwargs and isinstance(node.target, torch._ops.OpOverload):
        places = {argument.name: place for place, argument in enumerate(node.target._schema.arguments)}
        arguments |= {places[name]: value for name, value in node.kwargs.items() if name in places}
    if row.listed is not None:  # the factors are places of their own
        arguments = dict(enumerate(_items(node.args[row.listed]), start=row.listed))
    return {place for place, value in arguments.items() if not set(data).isdisjoint(_tensors(value))}


def _tensors(value: Any) -> list[fx.Node]:
    return [item for item in _items(value) if isinstance(item, fx.Node)]


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


_END = 2**63 - 1


def takes_all(bounds: Sequence[Any]) -> bool:
    """Whether start, end and step of a slice take every element."""
    start, end, step = [*bounds, None, None, None][:3]
    return step in (None, 1) and start in (None, 0) and end in (None, _END)


def values_read(node: fx.Node) -> list[fx.Node]:
    """The arguments whose elements an operator reads: of others it asks for sizes or type alone."""
    row, read = operator_of(node), node.all_input_nodes
    if row.sized or row.kind is Kind.MOVES:
        read = [argument for argument in read if not _whole_number(argument)]
    place = row.sizes_of
    if place is None or place >= len(node.args):
        return read
    measured = node.args[place]
    again = any(argument is measured for argument in (*node.args[:place], *node.args[place + 1 :]))
    return read if again else [argument for argument in read if argument is not measured]


def _whole_number(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), int | torch.SymInt | torch.SymBool)


def is_float(node: fx.Node) -> bool:
    """Whether the node's value is a floating-point or complex tensor, or holds one."""
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else (value,)
    return any(isinstance(v, Tensor) and (v.dtype.is_floating_point or v.dtype.is_complex) for v in values)


def random(node: fx.Node) -> bool:
    """Whether the operator draws random numbers, another library's that says so included; dropout only in train mode.

    torch marks operators that may draw, whether they are switched on or not.
    """
    if not isinstance(node.target, torch._ops.OpOverload) or switched_off(node):
        return False
    return torch.Tag.nondeterministic_seeded in node.target.tags


def switched_off(node: fx.Node) -> bool:
    """Whether an argument says that the operator is to compute as in eval mode."""
    return in_training(node) is False or drop_rate(node) == 0


def in_training(node: fx.Node) -> object:
    """The argument that says whether the operator computes as in train mode; None where it has none."""
    return argument_of(node, ("train", "training"))


def drop_rate(node: fx.Node) -> object:
    """The argument that says how much the operator drops; None where it has none."""
    return argument_of(node, ("p", "dropout", "dropout_p"))


def argument_of(node: fx.Node, names: Collection[str]) -> object:
    """The argument of one of these names, its default where none is given; None where there is no such argument."""
    assert isinstance(node.target, torch._ops.OpOverload)
    for place, argument in enumerate(node.target._schema.arguments):
        if argument.name in names:
            given = node.args[place] if place < len(node.args) else argument.default_value
            return node.kwargs.get(argument.name, given)
    return None

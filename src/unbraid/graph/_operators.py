"""What each operator does to the data that flow through it: the one table that `find` and `freeze` share."""

from typing import Any

import torch
from torch import Tensor, fx

# Each output element is one input element: nothing is computed, nothing lost.
_SHAPE = """
    view reshape _unsafe_view _reshape_alias flatten unflatten permute transpose t movedim swapaxes swapdims numpy_T
    squeeze unsqueeze expand expand_as view_as reshape_as contiguous clone alias detach lift_fresh_copy
    to _to_copy type_as roll flip view_as_real view_as_complex atleast_1d atleast_2d atleast_3d ravel
    resolve_conj resolve_neg mT mH adjoint
"""

# What the skip of a projection may pass: linear in its data up to a constant or a held scale, or a choice among them.
# Products of matrices other than with a weight are not among these: two attention scores are two branches.
_AFFINE = """
    slice select narrow split split_with_sizes chunk unbind tensor_split index index_select getitem slice_scatter
    linear addmm conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d
    batch_norm _native_batch_norm_legit_functional _native_batch_norm_legit_no_training _native_batch_norm_legit
    group_norm instance_norm layer_norm rms_norm
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean
    max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax max
    max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
    pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d
    cat repeat repeat_interleave tile pixel_shuffle pixel_unshuffle channel_shuffle
    upsample_nearest1d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d upsample_linear1d
    add sub neg mul div masked_fill
"""

# Element by element.
_POINTWISE = """
    add sub rsub mul div neg pow square sqrt rsqrt reciprocal exp exp2 expm1 log log2 log10 log1p abs sign sgn
    relu relu6 leaky_relu prelu elu selu celu gelu silu mish sigmoid log_sigmoid hardsigmoid hardswish hardtanh tanh
    softplus softsign threshold hardshrink softshrink tanhshrink erf erfc erfinv sin cos tan asin acos atan sinh cosh
    asinh acosh atanh clamp clamp_min clamp_max clip where maximum minimum fmod remainder floor ceil round trunc frac
    addcmul addcdiv lerp masked_fill nan_to_num logit sinc copysign dropout feature_dropout alpha_dropout fill
    bernoulli threshold_backward true_divide floor_divide logaddexp rrelu xlogy atan2 hypot real imag conj
    __or__ __and__ bitwise_and bitwise_or bitwise_not logical_not logical_and logical_or
    eq ne lt le gt ge isnan isinf zeros_like ones_like full_like native_dropout
"""

SHAPE_ONLY = frozenset(_SHAPE.split())
AFFINE = frozenset(_AFFINE.split())
POINTWISE = frozenset(_POINTWISE.split())
_DROPOUT = frozenset({"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"})


def name_of(node: fx.Node) -> str:
    """The operator's name without name space and overload: "add", "layer_norm", "getitem"."""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.split("::")[1]
    return getattr(node.target, "__name__", str(node.target))


def shape_only(node: fx.Node) -> bool:
    """Whether the operator moves elements and computes nothing; dropout computes nothing in eval mode."""
    name = name_of(node)
    if name in _DROPOUT:
        return not (len(node.args) > 2 and node.args[2])
    if name == "slice":
        return _bounds(node) == (0, _END)
    return name in SHAPE_ONLY


def mixing(node: fx.Node) -> bool:
    """Whether the operator makes an element from several: a product of matrices, a convolution, a norm, a softmax."""
    name = name_of(node)
    if shape_only(node) or name in _PICKS:
        return False
    return name not in POINTWISE


# Movements that lose or join elements: affine, and yet nothing is mixed.
_PICKS = frozenset(
    """slice select narrow split split_with_sizes chunk unbind tensor_split index index_select getitem cat stack hstack
    vstack concat repeat repeat_interleave tile pad constant_pad_nd slice_scatter select_scatter sym_size
    pixel_shuffle pixel_unshuffle channel_shuffle""".split()
)


def affine(node: fx.Node, data: list[fx.Node], *, held: bool = True) -> bool:
    """Whether the operator is affine, or a maximum, in the one operand that carries data.

    Args:
        node: a call of an operator.
        data: those of its arguments that carry data.
        held: whether a norm counts, whose scale depends on the data, as if that scale were held.
    """
    if shape_only(node):
        return True
    if name_of(node) not in AFFINE or (name_of(node) in _SCALED_BY_DATA and not held) or len(data) != 1:
        return False
    first, second = [*node.args, None][:2]
    if name_of(node) in _EITHER_SIDE:
        return (first is data[0]) != (second is data[0])  # x·x is not affine
    return first in (data[0], [data[0]]) and second is not data[0]


def jointly_affine(node: fx.Node, data: list[fx.Node], *, held: bool = True) -> bool:
    """Whether the operator is affine in all of its operands that carry data, taken together."""
    return affine(node, data, held=held) or name_of(node) in {"add", "sub", "cat", "stack", "slice_scatter"}


# Affine in their second operand, too: D·x as well as x·D.
_EITHER_SIDE = frozenset({"add", "sub", "mul"})

# Batch norm is none of these: in eval mode its scale is a constant.
_SCALED_BY_DATA = frozenset({"group_norm", "instance_norm", "layer_norm", "rms_norm"})


def disjoint(a: fx.Node, b: fx.Node) -> bool:
    """Whether two nodes are certain to pick different elements of the tensor that both read."""
    if name_of(a) != name_of(b):
        return False
    if name_of(a) == "getitem":
        return bool(a.args[1] != b.args[1])
    if name_of(a) == "select":
        return bool(a.args[1] == b.args[1] and a.args[2] != b.args[2])
    if name_of(a) != "slice" or (a.args[1:2] or (0,)) != (b.args[1:2] or (0,)):
        return False
    (start, end), (other_start, other_end) = _bounds(a), _bounds(b)
    known = all(isinstance(bound, int) and bound >= 0 for bound in (start, end, other_start, other_end))
    return known and (end <= other_start or other_end <= start)


_END = 2**63 - 1


def _bounds(node: fx.Node) -> tuple[Any, Any]:
    """The first element that a slice takes and the one after its last; its step only thins them out."""
    arguments: list[Any] = [*node.args, None, None, None, None]
    start, end, step = arguments[2:5]
    return (start or 0, _END if end is None else end) if step in (None, 1) else (start or 0, -1)


# The argument that these ask for its sizes or its type alone.
_MEASURED = {
    **dict.fromkeys(
        """sym_size sym_numel sym_stride sym_storage_offset zeros_like ones_like full_like empty_like rand_like
        randn_like randint_like new_zeros new_ones new_full new_empty new_empty_strided fill zero copy
        normal_functional uniform exponential cauchy geometric log_normal""".split(),
        0,
    ),
    **dict.fromkeys(("expand_as", "view_as", "reshape_as", "type_as"), 1),
}
# These ask all their numbers for sizes.
_SIZED = SHAPE_ONLY | frozenset(
    """zeros ones full empty rand randn arange eye tri linspace repeat tile zeros_like ones_like full_like empty_like
    rand_like randn_like randint_like new_zeros new_ones new_full new_empty new_empty_strided""".split()
)


def values_read(node: fx.Node) -> list[fx.Node]:
    """The arguments whose elements an operator reads: of others it asks for sizes or type alone."""
    name, read = name_of(node), node.all_input_nodes
    if name in _SIZED:
        read = [argument for argument in read if not _whole_number(argument)]
    place = _MEASURED.get(name)
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

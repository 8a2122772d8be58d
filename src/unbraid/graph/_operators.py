"""What each operator does to the data that flow through it: the one table that `find` and `freeze` share."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

# Each output element is one input element: nothing is computed, nothing lost.
_SHAPE = """
    view reshape _unsafe_view _reshape_alias flatten unflatten permute transpose t movedim swapaxes swapdims numpy_T
    squeeze unsqueeze expand expand_as view_as reshape_as contiguous clone alias detach lift_fresh_copy
    to _to_copy type_as roll flip view_as_real view_as_complex atleast_1d atleast_2d atleast_3d ravel
    resolve_conj resolve_neg mT mH adjoint
"""

# Affine in some of their arguments, the others held: linear in them up to a constant or a held scale, or a choice among
# them. Each row names such groups of arguments by their places: all of one group may carry data at once. A list of
# tensors is one argument. Products are affine in one factor alone: two attention scores are two branches.
_Groups: TypeAlias = tuple[tuple[int, ...], ...]
_AFFINE: list[tuple[_Groups, str]] = [
    (
        ((0,),),
        """
        slice select narrow split split_with_sizes unsafe_split chunk unbind tensor_split index index_select gather take
        take_along_dim masked_select getitem diagonal diag_embed unfold im2col as_strided tril triu rot90 fliplr flipud
        linear conv1d conv2d conv3d convolution _convolution conv_transpose1d conv_transpose2d conv_transpose3d col2im
        batch_norm _native_batch_norm_legit_functional _native_batch_norm_legit_no_training _native_batch_norm_legit
        group_norm instance_norm layer_norm rms_norm native_layer_norm native_group_norm _fused_rms_norm
        avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
        _adaptive_avg_pool2d _adaptive_avg_pool3d mean sum nansum cumsum diff trace
        max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax max
        max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
        pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
        replication_pad3d repeat repeat_interleave tile pixel_shuffle pixel_unshuffle channel_shuffle
        upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
        upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa
        _upsample_bicubic2d_aa grid_sampler grid_sampler_2d grid_sampler_3d
        fft_fft fft_fft2 fft_fftn fft_ifft fft_ifft2 fft_ifftn fft_rfft fft_rfft2 fft_rfftn fft_irfft fft_irfft2
        fft_irfftn fft_hfft fft_ihfft fft_fftshift fft_ifftshift _fft_r2c _fft_c2c _fft_c2r real imag conj _conj
        div neg dropout feature_dropout alpha_dropout feature_alpha_dropout native_dropout
        cat concat concatenate stack hstack vstack dstack column_stack
        """,
    ),
    (((0, 1),), "add sub rsub lerp addcdiv slice_scatter select_scatter diagonal_scatter"),
    (((0,), (1,)), "mul matmul mm bmm mv dot inner outer ger kron"),
    (((1,),), "copy"),
    (((1,), (2,), (3,), (4,)), "einsum"),
    (((0, 1), (0, 2)), "addmm addmv addr baddbmm addbmm addcmul"),
    (((1, 2),), "where"),
    (((0, 2),), "masked_fill index_put _index_put_impl masked_scatter"),
    (((0, 3),), "index_add index_copy scatter_add scatter scatter_reduce"),
]

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
    special_i0 i0 special_i0e special_i1 special_i1e lgamma digamma special_erfcx special_ndtr special_log_ndtr
    special_ndtri special_entr special_expit special_logit special_bessel_j0 special_bessel_j1 deg2rad rad2deg ldexp
    float_power positive
"""

SHAPE_ONLY = frozenset(_SHAPE.split())
AFFINE: dict[str, _Groups] = {name: groups for groups, names in _AFFINE for name in names.split()}
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
        return takes_all(node.args[2:])
    return name in SHAPE_ONLY


def mixing(node: fx.Node) -> bool:
    """Whether the operator makes an element from several: a product of matrices, a convolution, a norm, a softmax."""
    name = name_of(node)
    if shape_only(node) or name in _PICKS:
        return False
    return name not in POINTWISE


# Movements that lose or join elements: affine, and yet nothing is mixed.
_PICKS = frozenset(
    """slice select narrow split split_with_sizes unsafe_split chunk unbind tensor_split index index_select gather take
    take_along_dim masked_select getitem diagonal diag_embed unfold as_strided tril triu rot90 fliplr flipud
    cat concat concatenate stack hstack vstack dstack column_stack repeat repeat_interleave tile pad constant_pad_nd
    slice_scatter select_scatter diagonal_scatter index_put _index_put_impl index_copy scatter masked_scatter copy
    sym_size pixel_shuffle pixel_unshuffle channel_shuffle meshgrid broadcast_tensors""".split()
)

# Batch norm is none of these: in eval mode its scale is a constant.
_SCALED_BY_DATA = frozenset(
    "group_norm instance_norm layer_norm rms_norm native_layer_norm native_group_norm _fused_rms_norm".split()
)
_NORMS = _SCALED_BY_DATA | frozenset(name for name in AFFINE if "batch_norm" in name)
# Each element is looked up at a place of its own: a table of relative positions for attention scores, not a stream.
_LOOKED_UP = frozenset({"gather", "take", "take_along_dim"})
_REDUCTIONS = frozenset({"sum", "mean", "add", "amax", "amin"})


class Carrier(IntEnum):
    """How an operator carries an operand, with all else held at its value: the smaller, the stronger."""

    SHAPE = 0  # it moves all of the elements
    PICK = 1  # it takes some of them, or puts them among others
    SCALED = 2  # it multiplies each by a number, or a norm's held scale
    MIXING = 3  # it is affine, or a maximum, and makes an element from several


def carrier(node: fx.Node, data: Sequence[fx.Node], *, held: bool = True) -> Carrier | None:
    """How an operator carries the one operand that carries data; None if it does not.

    Args:
        node: a call of an operator.
        data: those of its arguments that carry data.
        held: whether a norm counts, whose scale depends on the data, as if that scale were held.
    """
    if shape_only(node):
        return Carrier.SHAPE
    if not affine(node, data, held=held) or name_of(node) in _LOOKED_UP:
        return None
    if name_of(node) in _PICKS:
        return Carrier.PICK
    return Carrier.SCALED if name_of(node) in _NORMS or not mixing(node) else Carrier.MIXING


def affine(node: fx.Node, data: Sequence[fx.Node], *, held: bool = True) -> bool:
    """Whether the operator is affine, or a maximum, in the one operand that carries data; see `carrier`."""
    return shape_only(node) or (len(data) == 1 and jointly_affine(node, data, held=held))


def jointly_affine(node: fx.Node, data: Sequence[fx.Node], *, held: bool = True) -> bool:
    """Whether the operator is affine in all of its operands that carry data, taken together."""
    if shape_only(node):
        return True
    if not data or (name_of(node) in _SCALED_BY_DATA and not held) or not _linear_variant(node):
        return False
    places = {place for place, tensors in _by_place(node).items() if not tensors.isdisjoint(data)}
    return any(places <= set(group) for group in AFFINE.get(name_of(node), ()))


def _linear_variant(node: fx.Node) -> bool:
    """Whether an option of the operator leaves it affine: a division that rounds is not, nor a product at places."""
    options = [*node.args[3:], *node.kwargs.values()] if "scatter" in name_of(node) else node.kwargs.values()
    named = {option for option in options if isinstance(option, str)}
    return not named & {"floor", "trunc"} and ("scatter" not in name_of(node) or named <= _REDUCTIONS)


def _by_place(node: fx.Node) -> dict[int, set[fx.Node]]:
    """The tensors at each place of an operator's arguments, named ones included."""
    arguments = dict(enumerate(node.args))
    if node.kwargs and isinstance(node.target, torch._ops.OpOverload):
        places = {argument.name: place for place, argument in enumerate(node.target._schema.arguments)}
        arguments |= {places[name]: value for name, value in node.kwargs.items() if name in places}
    if name_of(node) == "einsum":  # the factors are places of their own
        arguments = dict(enumerate(_items(node.args[1]), start=1))
    return {
        place: {tensor for tensor in _items(value) if isinstance(tensor, fx.Node)} for place, value in arguments.items()
    }


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


_END = 2**63 - 1


def takes_all(bounds: Sequence[Any]) -> bool:
    """Whether start, end and step of a slice take every element."""
    start, end, step = [*bounds, None, None, None][:3]
    return step in (None, 1) and start in (None, 0) and end in (None, _END)


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

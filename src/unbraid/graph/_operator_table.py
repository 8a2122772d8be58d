"""The one table of operators: a row for each says what is known of it. Find, freeze and all others ask here.

It is keyed by the operator itself, torch's OpOverloadPacket or a function of Python's, so that an operator of another
name space is none of these, whatever its name: `OPAQUE`. Operators that this version of torch lacks have no row.
A property test calls each on numbers and checks what its row says.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import torch

from unbraid.graph._operator_row import (
    BASE_AND_EITHER,
    BOTH,
    EITHER,
    FIRST,
    SECOND,
    Attention,
    Frozen,
    Holds,
    Kind,
    Memory,
    Operator,
    Random,
)

Key: TypeAlias = Callable[..., Any]

aten = torch.ops.aten

TABLE: dict[Key, Operator] = {}
# Those of other libraries, by their whole name: they are registered once their library is imported.
LATER: dict[str, Operator] = {}
# Those that this version of torch lacks.
ABSENT: set[str] = set()


def _rows(row: Operator, names: str, *, of: Any = aten) -> None:
    for name in names.split():
        key = getattr(of, name, None)
        assert key not in TABLE, f"two rows for {name}"
        if key is None:
            ABSENT.add(name)
        else:
            TABLE[key] = row


# --- Each output element is one input element.

_moves = Operator(Kind.MOVES, FIRST, Frozen.LINEAR)
_rows(
    _moves,
    """view reshape _unsafe_view flatten unflatten permute transpose t movedim moveaxis swapaxes swapdims numpy_T
    squeeze unsqueeze expand broadcast_to roll flip view_as_real view_as_complex atleast_1d atleast_2d atleast_3d ravel
    resolve_conj resolve_neg mT fft_fftshift fft_ifftshift""",
)
_rows(replace(_moves, sizes_of=1), "expand_as view_as reshape_as")
_rows(replace(_moves, memory=Memory.READS_PLACES), "_reshape_alias")
# Of complex numbers they take the conjugate, too: the one thing that is computed here.
_rows(_moves, "mH adjoint")
_copies = replace(_moves, copies=True)
_rows(_copies, "contiguous clone alias lift_fresh_copy to _to_copy")
_rows(replace(_copies, sizes_of=1), "type_as")
_rows(replace(_copies, freeze=Frozen.DETACH), "detach")

# --- Movements that lose, repeat or join elements.

_picks = Operator(Kind.PICKS, FIRST, Frozen.LINEAR)
_takes = replace(_picks, takes=True)
_rows(
    _takes,
    """slice select narrow split split_with_sizes unsafe_split chunk unbind tensor_split index index_select diagonal
    unfold repeat_interleave""",
)
_rows(replace(_takes, sized=True), "repeat tile")
_rows(replace(_takes, freeze=Frozen.RESULT), "getitem", of=operator)
_rows(
    _picks,
    """masked_select diag_embed tril triu rot90 fliplr flipud pixel_shuffle pixel_unshuffle channel_shuffle
    reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
    max_unpool2d max_unpool3d""",
)
_rows(replace(_picks, looks_up=True), "gather take take_along_dim")
_rows(replace(_picks, memory=Memory.READS_PLACES), "as_strided as_strided_copy")
_rows(
    replace(_picks, shifts=0),
    "cat concat concatenate stack hstack vstack dstack column_stack block_diag meshgrid broadcast_tensors",
)
_rows(replace(_picks, shifts=3), "pad")
_rows(replace(_picks, shifts=2), "constant_pad_nd")
_writes = replace(_picks, affine=BOTH, shifts=0)
_rows(replace(_writes, reader=aten.slice), "slice_scatter")
_rows(replace(_writes, reader=aten.select), "select_scatter")
_rows(replace(_writes, reader=aten.diagonal), "diagonal_scatter")
_rows(replace(_writes, memory=Memory.READS_PLACES), "as_strided_scatter")
_rows(replace(_writes, affine=((0, 2),), reader=aten.index), "index_put _index_put_impl")
_rows(replace(_writes, affine=((0, 2),), reader=aten.masked_select), "masked_scatter")
_rows(replace(_writes, affine=((0, 2),)), "put")
_rows(replace(_writes, affine=((0, 3),), reader=aten.gather), "scatter")
_rows(replace(_writes, affine=((0, 3),)), "index_copy index_fill")
_rows(Operator(Kind.PICKS, SECOND, Frozen.COPIED, sizes_of=0), "copy")
_rows(Operator(Kind.PICKS, sizes_of=0), "sym_size")

# --- Element by element.

_pointwise = Operator(Kind.POINTWISE)
_rows(Operator(Kind.POINTWISE, BOTH, Frozen.LINEAR, shifts=0), "add sub rsub complex")
_rows(Operator(Kind.POINTWISE, BOTH, Frozen.LERP, shifts=0), "lerp")
_rows(Operator(Kind.POINTWISE, BOTH, Frozen.QUOTIENT_ADDED, shifts=0), "addcdiv")
_rows(Operator(Kind.POINTWISE, BASE_AND_EITHER, Frozen.PRODUCT, shifts=0), "addcmul")
_rows(Operator(Kind.POINTWISE, ((0, 2),), Frozen.LINEAR, shifts=2), "masked_fill")
_rows(Operator(Kind.POINTWISE, ((1, 2),), Frozen.LINEAR, shifts=0), "where")
_rows(Operator(Kind.POINTWISE, EITHER, Frozen.PRODUCT), "mul")
_rows(Operator(Kind.POINTWISE, FIRST, Frozen.DIVISION), "div true_divide")
_rows(Operator(Kind.POINTWISE, FIRST, Frozen.LINEAR), "neg real imag positive deg2rad rad2deg")
_rows(Operator(Kind.POINTWISE, FIRST, Frozen.CONJUGATE), "conj _conj")
_rows(Operator(Kind.POINTWISE, FIRST, Frozen.FIRST_ALONE), "ldexp xlogy")
_rows(
    _pointwise,
    """pow square sqrt exp exp2 expm1 log log2 log10 log1p abs sign sgn relu relu6 leaky_relu prelu elu selu celu gelu
    silu mish sigmoid log_sigmoid hardsigmoid hardswish hardtanh tanh softplus threshold hardshrink softshrink
    erf erfc erfinv sin cos tan asin acos atan sinh cosh asinh acosh atanh clamp clamp_min clamp_max clip
    fmod remainder floor ceil round trunc frac nan_to_num logit sinc threshold_backward floor_divide logaddexp atan2
    copysign hypot __or__ __and__ bitwise_and bitwise_or bitwise_not logical_not logical_and logical_or eq ne lt le gt
    ge isnan isinf special_i0 i0 special_i0e special_i1 special_i1e lgamma digamma special_erfcx special_ndtr
    special_log_ndtr special_ndtri special_entr special_expit special_logit special_bessel_j0 special_bessel_j1
    float_power""",
)
_rows(replace(_pointwise, scale=True), "rsqrt reciprocal")
_rows(replace(_pointwise, freeze=Frozen.LARGER), "maximum minimum")
_rows(replace(_pointwise, random=Random.SWITCHED), "rrelu")
# Sizes are computed with these.
_rows(_pointwise, "add sub mul truediv floordiv mod pow neg abs eq ne lt le gt ge and_ or_", of=operator)
_rows(_pointwise, "ceil floor trunc sqrt", of=math)
_rows(_pointwise, "sym_float sym_int sym_max sym_min sym_not sym_ite sym_sum", of=torch)

# --- Dropout; in eval mode it moves. Of those but the first a run does not tell the mask.

_dropout = Operator(Kind.POINTWISE, FIRST, Frozen.DROPOUT, random=Random.SWITCHED)
_rows(_dropout, "dropout alpha_dropout feature_dropout feature_alpha_dropout")
_rows(replace(_dropout, freeze=None), "native_dropout")

# --- Norms, and the lengths by which norms are spelled out.

_norm = Operator(Kind.NORM, FIRST, holds=Holds.SCALE, shifts=0)
_rows(replace(_norm, freeze=Frozen.LAYER_NORM, channels=-1), "layer_norm native_layer_norm")
_rows(replace(_norm, freeze=Frozen.RMS_NORM, channels=-1, shifts=None), "rms_norm _fused_rms_norm")
_rows(replace(_norm, freeze=Frozen.GROUP_NORM, channels=1), "group_norm")
_rows(replace(_norm, freeze=Frozen.NATIVE_GROUP_NORM, channels=1), "native_group_norm")
_rows(replace(_norm, freeze=Frozen.INSTANCE_NORM, channels=1), "instance_norm")
_rows(replace(_norm, freeze=Frozen.BATCH_NORM, channels=1, holds=None), "batch_norm")
_rows(
    replace(_norm, freeze=Frozen.LEGIT_BATCH_NORM, channels=1, holds=None),
    """native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional
    _native_batch_norm_legit_no_training""",
)
_rows(Operator(Kind.NORM, freeze=Frozen.HELD), "linalg_vector_norm linalg_norm norm linalg_matrix_norm")
_rows(Operator(Kind.NORM), "renorm _weight_norm norm_except_dim frobenius_norm nuclear_norm")
_rows(Operator(Kind.NORM, memory=Memory.READS_PLACES), "_weight_norm_interface")

# --- Products. Those of a base and a product add the base.

_product = Operator(Kind.MIXES, EITHER, Frozen.PRODUCT)
_rows(replace(_product, attention=Attention.PRODUCT), "bmm")
_rows(replace(_product, attention=Attention.PRODUCT, channels=-1), "matmul")
_rows(replace(_product, channels=-1), "mm")
_rows(_product, "mv dot inner outer ger kron linalg_vecdot vdot linalg_cross cross tensordot")
_rows(replace(_product, shifts=3), "bilinear")
_rows(_product, "_grouped_mm")
_rows(replace(_product, affine=((1,), (2,), (3,), (4,)), listed=1, attention=Attention.PRODUCT), "einsum")
_rows(replace(_product, affine=((0,), (1,), (2,), (3,)), listed=0), "linalg_multi_dot")
_rows(replace(_product, affine=BASE_AND_EITHER, shifts=0), "addbmm baddbmm addmv addr")
_rows(replace(_product, affine=BASE_AND_EITHER, shifts=0, channels=-1), "addmm")
# Data in the place of the weight are a matrix that the data decide, which find lets no trunk pass.
_weighted = replace(_product, affine=FIRST, shifts=2)
_rows(replace(_weighted, channels=-1), "linear")
_convolution = replace(_weighted, kind=Kind.CONVOLUTION, channels=1)
_rows(replace(_convolution, memory=Memory.IMAGES), "conv2d convolution")
_rows(_convolution, "conv1d conv3d conv_transpose1d conv_transpose2d conv_transpose3d _convolution _convolution_mode")
_rows(replace(_convolution, channels=-1), "conv_tbc")
LATER["transformers::grouped_mm_fallback"] = _product  # `_grouped_mm` where a device has none
LATER["torchvision::deform_conv2d"] = Operator(Kind.CONVOLUTION, channels=1)

# --- Affine, and an element from several. Interpolation is one thing, whatever its mode, and so are windows.

_mixes = Operator(Kind.MIXES, FIRST, Frozen.LINEAR)
_rows(
    _mixes,
    """mean sum nansum cumsum diff trace avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d im2col col2im upsample_nearest1d upsample_nearest2d
    upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d
    upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa fft_fft fft_fft2 fft_fftn
    fft_ifft fft_ifft2 fft_ifftn fft_rfft fft_rfft2 fft_rfftn fft_irfft fft_irfft2 fft_irfftn fft_hfft fft_ihfft
    _fft_r2c _fft_c2c _fft_c2r stft istft affine_grid_generator segment_reduce""",
)
_rows(replace(_mixes, affine=((0, 3),), shifts=0), "index_add scatter_add")
_rows(replace(_mixes, affine=((0, 3),), shifts=0, freeze=Frozen.SCATTERED), "scatter_reduce index_reduce")
_rows(replace(_mixes, freeze=Frozen.FIRST_ALONE), "grid_sampler grid_sampler_2d grid_sampler_3d")
_rows(replace(_mixes, freeze=Frozen.FIRST_ALONE), "trapezoid cumulative_trapezoid")
_rows(replace(_mixes, affine=SECOND, freeze=Frozen.SECOND_ALONE), "linalg_solve linalg_solve_triangular")
_rows(Operator(Kind.POINTWISE, FIRST, Frozen.FIRST_ALONE), "polar")

# --- Maxima and what sorts: affine once the choice is held. Find lets a trunk pass where one choice is made in a place.

_largest = Operator(Kind.MIXES, FIRST, holds=Holds.CHOICE)
_rows(replace(_largest, freeze=Frozen.LARGEST_ALONG), "amax amin")
_rows(replace(_largest, freeze=Frozen.SORTED), "max min")
_rows(
    replace(_largest, freeze=Frozen.POOLED),
    """max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d""",
)
_rows(Operator(Kind.MIXES, freeze=Frozen.POOLED_AT_RANDOM), "fractional_max_pool2d fractional_max_pool3d")
_rows(Operator(Kind.MIXES, freeze=Frozen.SORTED), "sort topk kthvalue median nanmedian mode cummax cummin")
_rows(Operator(Kind.MIXES, freeze=Frozen.BOTH_ENDS), "aminmax")
_rows(Operator(Kind.MIXES, freeze=Frozen.LARGER), "fmax fmin")

# --- What else freezing holds, all of it or a part.

_held = Operator(Kind.MIXES, freeze=Frozen.HELD)
_rows(replace(_held, attention=Attention.PATTERN), "softmax _softmax _safe_softmax special_softmax")
_rows(replace(_held, attention=Attention.PATTERN, freeze=Frozen.LOG_SOFTMAX), "log_softmax _log_softmax")
_rows(Operator(Kind.MIXES, attention=Attention.PATTERN), "special_log_softmax")
_rows(Operator(Kind.MIXES, attention=Attention.PATTERN, memory=Memory.READS_PLACES), "_masked_softmax")
_rows(_held, "std var logsumexp cdist _cdist_forward _euclidean_dist pairwise_distance")
_rows(Operator(Kind.MIXES, freeze=Frozen.MEAN_BESIDE), "var_mean std_mean")
_rows(Operator(Kind.MIXES, freeze=Frozen.GLU), "glu")
_rows(Operator(Kind.MIXES, freeze=Frozen.COSINE), "cosine_similarity")
_whole = Operator(Kind.MIXES, attention=Attention.WHOLE, random=Random.SWITCHED)
_rows(replace(_whole, freeze=Frozen.ATTENTION), "scaled_dot_product_attention")
_rows(_whole, "_scaled_dot_product_attention_math")
_rows(
    replace(_whole, memory=Memory.READS_PLACES),
    """_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu
    _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention""",
)

# --- What reads sizes alone, and what draws.

_sized = Operator(Kind.MIXES, sized=True)
_like = replace(_held, sizes_of=0, sized=True)
_rows(_sized, "zeros ones full empty arange eye linspace")
_rows(_like, "new_zeros new_ones new_full new_empty empty_like")
_rows(replace(_like, kind=Kind.POINTWISE), "zeros_like ones_like full_like")
_rows(replace(_like, memory=Memory.READS_PLACES), "new_empty_strided")
_rows(Operator(Kind.POINTWISE, sizes_of=0), "fill")
_rows(Operator(Kind.MIXES, sizes_of=0), "sym_numel zero")
_rows(Operator(Kind.MIXES, sizes_of=0, memory=Memory.READS_PLACES), "sym_stride sym_storage_offset")
_rows(
    Operator(Kind.MIXES, memory=Memory.READS_PLACES),
    "as_strided_ empty_strided set_ resize_ stride is_contiguous sym_is_contiguous",
)

_rows(replace(_sized, random=Random.UNIT), "rand")
_rows(replace(_sized, random=Random.STANDARD), "randn")
_rows(replace(_like, random=Random.UNIT), "rand_like")
_rows(replace(_like, random=Random.STANDARD), "randn_like")
_rows(replace(_like, sized=False, random=Random.OTHER), "randint_like")
_rows(Operator(Kind.MIXES, random=Random.OTHER), "randint randperm poisson")
_rows(Operator(Kind.MIXES, random=Random.NORMAL), "normal")
_rows(Operator(Kind.MIXES, sizes_of=0, random=Random.NORMAL_OVER), "normal_functional")
_rows(Operator(Kind.MIXES, sizes_of=0, random=Random.UNIFORM_OVER), "uniform")
_rows(Operator(Kind.MIXES, sizes_of=0, random=Random.OTHER), "exponential cauchy geometric log_normal")
_rows(replace(_pointwise, freeze=Frozen.HELD, random=Random.OTHER), "bernoulli")
_rows(replace(_held, random=Random.OTHER), "multinomial")

# --- What torch's references are made of goes by the names, and means what they mean, of the operators above.

for _name in """
    abs acos acosh add amax amin as_strided asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or cat ceil
    clone conj cos cosh digamma div empty eq erf erfc exp exp2 expm1 fill floor fmax fmin fmod full full_like ge gt
    hypot imag le lgamma log log10 log1p log2 lt maximum minimum mul ne neg pow real reciprocal remainder reshape round
    rsqrt sign sin sinh sqrt squeeze sub sum tan tanh transpose trunc var where
""".split():
    _rows(TABLE[getattr(aten, _name)], _name, of=torch.ops.prims)

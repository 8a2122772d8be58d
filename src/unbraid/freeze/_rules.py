"""How each operator is made affine: linear ones stay, the rest hold what is not linear at its value."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import fx

from unbraid.freeze._linear import both_ends, cosine, glu, linear_in, mean_beside, scattered
from unbraid.freeze._maxima import choice, copied, first, maximum, maximum_along, picked, pooled, pooled_at_random
from unbraid.freeze._norms import batch_norm, group_norm, instance_norm, layer_norm, legit_batch_norm, rms_norm
from unbraid.freeze._products import attention, division, dropout, lerp, log_softmax, product

if TYPE_CHECKING:
    from unbraid.freeze._freezer import Freezer

Rule: TypeAlias = Callable[["Freezer", fx.Node], Any]

aten = torch.ops.aten

# Linear in all operands that carry data, taken together. Those that mix forget which non-linearities came before.
MOVING = frozenset(
    """view reshape _unsafe_view _reshape_alias flatten unflatten permute transpose t movedim swapaxes swapdims numpy_T
    squeeze unsqueeze expand expand_as view_as reshape_as contiguous clone alias detach lift_fresh_copy to _to_copy
    type_as roll flip view_as_real view_as_complex resolve_conj resolve_neg mT mH adjoint ravel atleast_1d atleast_2d
    atleast_3d slice select narrow split split_with_sizes chunk unbind unsafe_split tensor_split index index_select
    gather take_along_dim slice_scatter select_scatter diagonal_scatter cat stack hstack vstack repeat
    repeat_interleave tile pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
    replication_pad2d replication_pad3d pixel_shuffle pixel_unshuffle channel_shuffle getitem unfold tril triu
    masked_fill add sub rsub neg real imag conj _conj complex diagonal diag_embed as_strided index_put _index_put_impl
    masked_scatter scatter masked_select broadcast_to constant_pad rot90 fliplr flipud where index_copy index_fill take
    put max_unpool2d max_unpool3d broadcast_tensors meshgrid block_diag""".split()
)
MIXING = frozenset(
    """avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    _adaptive_avg_pool2d _adaptive_avg_pool3d mean sum nansum cumsum upsample_nearest1d upsample_nearest2d
    upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d
    upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa im2col col2im index_add
    scatter_add stft istft affine_grid_generator _fft_r2c _fft_c2c _fft_c2r fft_fft fft_fft2 fft_ifft fft_ifft2
    fft_rfft fft_irfft fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn fft_hfft fft_ihfft fft_fftshift
    fft_ifftshift diff trace segment_reduce""".split()
)
PRODUCTS = frozenset(
    """mul matmul bmm mm mv dot einsum baddbmm addbmm addmm linear conv1d conv2d conv3d convolution conv_transpose1d
    conv_transpose2d conv_transpose3d _grouped_mm grouped_mm_fallback outer ger bilinear inner kron tensordot
    linalg_vecdot vdot linalg_cross cross linalg_multi_dot""".split()
)
# A factor made by one of these is a norm's scale: it is held even beside a factor that passed a non-linearity.
SCALES = frozenset({"rsqrt", "reciprocal"})
# Constant: attention keeps its pattern, a norm its scale.
HELD = frozenset(
    """softmax _softmax _safe_softmax linalg_vector_norm linalg_norm norm std var logsumexp bernoulli multinomial
    linalg_matrix_norm cdist _cdist_forward _euclidean_dist pairwise_distance""".split()
)
# Of their argument these read the size alone.
CONSTANT = frozenset(
    """zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full new_empty""".split()
)

RULES: dict[str, Rule] = {
    "layer_norm": layer_norm,
    "native_layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "_fused_rms_norm": rms_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": legit_batch_norm,
    "_native_batch_norm_legit_functional": legit_batch_norm,
    "_native_batch_norm_legit": legit_batch_norm,
    "scaled_dot_product_attention": attention,
    "amax": maximum_along,
    "amin": maximum_along,
    "max": picked,
    "min": picked,
    "maximum": maximum,
    "minimum": maximum,
    "where": choice,
    "getitem": first,
    "copy": copied,
    "div": division,
    "true_divide": division,
    "log_softmax": log_softmax,
    "_log_softmax": log_softmax,
    "dropout": dropout,
    "lerp": lerp,
    "glu": glu,
    "cosine_similarity": cosine,
    "polar": linear_in(0),
    "grid_sampler": linear_in(0),
    "grid_sampler_2d": linear_in(0),
    "grid_sampler_3d": linear_in(0),
    "trapezoid": linear_in(0),
    "cumulative_trapezoid": linear_in(0),
    "linalg_solve": linear_in(1),
    "linalg_solve_triangular": linear_in(1),
    "addcdiv": linear_in(0, 1),
    "var_mean": mean_beside,
    "std_mean": mean_beside,
    "aminmax": both_ends,
    "scatter_reduce": scattered,
    "index_reduce": scattered,
    "fmax": maximum,
    "fmin": maximum,
    **dict.fromkeys(("sort", "topk", "kthvalue", "median", "nanmedian", "mode", "cummax", "cummin"), picked),
    **dict.fromkeys(("fractional_max_pool2d", "fractional_max_pool3d"), pooled_at_random),
    **{f"max_pool{rank}d{suffix}": pooled for rank in (1, 2, 3) for suffix in ("", "_with_indices")},
    **{f"adaptive_max_pool{rank}d": pooled for rank in (1, 2, 3)},
    **dict.fromkeys(PRODUCTS, product),
}

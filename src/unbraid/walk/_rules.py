"""How each operator is made affine: linear ones stay, the rest hold what is not linear at its value."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, fx

if TYPE_CHECKING:
    from unbraid.walk._freezer import Freezer

Rule: TypeAlias = Callable[["Freezer", fx.Node], fx.Node]

aten = torch.ops.aten

# Linear in all operands that carry data, taken together. Those that mix forget which non-linearities came before.
MOVING = frozenset(
    """view reshape _unsafe_view _reshape_alias flatten unflatten permute transpose t movedim swapaxes numpy_T squeeze
    unsqueeze expand expand_as view_as contiguous clone alias detach lift_fresh_copy to _to_copy type_as roll flip
    view_as_real view_as_complex slice select narrow split split_with_sizes chunk unbind tensor_split index
    index_select gather take_along_dim slice_scatter select_scatter cat stack hstack vstack repeat repeat_interleave
    tile pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d pixel_shuffle
    pixel_unshuffle channel_shuffle getitem unfold tril triu masked_fill add sub rsub neg real imag conj
    resolve_conj diagonal as_strided zeros_like index_put masked_scatter scatter""".split()
)
MIXING = frozenset(
    """linear addmm conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean sum cumsum
    upsample_nearest1d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d upsample_linear1d im2col col2im
    index_add scatter_add _fft_r2c _fft_c2c _fft_c2r fft_fft fft_fft2 fft_ifft fft_rfft fft_irfft fft_rfft2 fft_irfft2
    fft_fftn fft_ifftn diff dropout""".split()
)
PRODUCTS = frozenset({"mul", "matmul", "bmm", "mm", "einsum", "baddbmm"})
# A norm's scale however it is spelled out: of two factors these are held first.
SCALES = frozenset({"rsqrt", "reciprocal", "linalg_vector_norm", "norm", "std", "var"})
HELD = frozenset({"softmax", "_softmax", "linalg_vector_norm", "norm", "std", "var", "logsumexp", "one_hot"})


def layer_norm(freezer: "Freezer", node: fx.Node) -> fx.Node:
    """(x − mean x)·w/σ + b with σ held; centring by the input's own mean is linear."""
    x, shape, weight, bias, eps = _given(node, 5, None, None, 1e-5)
    dims = list(range(-len(shape), 0))
    value = freezer.value(x)
    rstd = torch.rsqrt(value.var(dims, correction=0, keepdim=True) + eps)
    return _normed(freezer, x, freezer.call(aten.mean.dim, freezer.linear(x), dims, True), rstd, weight, bias)


def rms_norm(freezer: "Freezer", node: fx.Node) -> fx.Node:
    """x·w/rms with rms held."""
    x, shape, weight, eps = _given(node, 4, None, None)
    value = freezer.value(x)
    eps = torch.finfo(value.dtype).eps if eps is None else eps
    scale = torch.rsqrt(value.square().mean(list(range(-len(shape), 0)), keepdim=True) + eps)
    return _normed(freezer, x, None, scale, weight, None)


def group_norm(freezer: "Freezer", node: fx.Node) -> fx.Node:
    """(x − mean x)·w/σ + b over groups of channels, σ held."""
    x, groups, weight, bias, eps = _given(node, 5, None, None, 1e-5)
    value = freezer.value(x)
    batch = len(value)
    grouped = value.reshape(batch, groups, -1)
    rstd = torch.rsqrt(grouped.var(-1, correction=0, keepdim=True) + eps)
    split = freezer.call(aten.reshape.default, freezer.linear(x), [batch, groups, -1])
    centred = freezer.call(aten.sub.Tensor, split, freezer.call(aten.mean.dim, split, [-1], True))
    scaled = freezer.call(aten.mul.Tensor, centred, freezer.hold(rstd))
    whole = freezer.call(aten.reshape.default, scaled, list(value.shape))
    return _affine(freezer, whole, _column(freezer, weight, value), _column(freezer, bias, value))


def batch_norm(freezer: "Freezer", node: fx.Node) -> fx.Node:
    """Affine in eval mode; in train mode the batch's mean and variance are held."""
    x, weight, bias, _, _, training, _, eps = _args(node)[:8]
    if not training:
        return freezer.copy(node)
    value = freezer.value(x)
    dims = [d for d in range(value.ndim) if d != 1]
    mean = value.mean(dims, keepdim=True)
    rstd = torch.rsqrt(value.var(dims, correction=0, keepdim=True) + eps)
    w, b = _column(freezer, weight, value), _column(freezer, bias, value)
    return _normed(freezer, x, freezer.hold(mean), rstd, w, b)


def attention(freezer: "Freezer", node: fx.Node) -> fx.Node:
    """pattern·V with the pattern held: paths through queries and keys end there."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given: dict[str, Any] = {**dict(zip(names, _args(node), strict=False)), **node.kwargs}
    query, key, value = (freezer.value(given[name]) for name in names[:3])
    mask = freezer.value(given["attn_mask"]) if given.get("attn_mask") is not None else None
    repeats = query.shape[-3] // key.shape[-3] if given.get("enable_gqa") else 1
    width = key.shape[-2]
    # Attending to one-hot values gives the pattern itself, whatever the mask, the scale and the kernel.
    unit = torch.eye(width, dtype=value.dtype, device=value.device).expand(*value.shape[:-1], width)
    pattern = torch.nn.functional.scaled_dot_product_attention(
        query, key, unit, mask, is_causal=given.get("is_causal", False), scale=given.get("scale"),
        enable_gqa=bool(given.get("enable_gqa")),
    )  # fmt: skip
    values = freezer.linear(given["value"])
    if repeats > 1:
        values = freezer.call(aten.repeat_interleave.self_int, values, repeats, -3)
    return freezer.call(aten.matmul.default, freezer.hold(pattern), values)


def max_pool(freezer: "Freezer", node: fx.Node) -> fx.Node:
    """The choice of the maximum is held: a gather."""
    x = _args(node)[0]
    value = freezer.value(x)
    rank = int(str(node.target).split("max_pool")[1][0])
    pool = getattr(torch.nn.functional, f"max_pool{rank}d")
    window, stride, padding, dilation, ceil = _given(node, 6, None, 0, 1, False)[1:]
    _, index = pool(value, window, stride or None, padding, dilation, ceil, return_indices=True)
    flat = freezer.call(aten.flatten.using_ints, freezer.linear(x), -rank, -1)
    picked = freezer.call(aten.gather.default, flat, -1, freezer.hold(index.flatten(-rank)))
    return freezer.call(aten.reshape.default, picked, list(index.shape))


def maximum_along(freezer: "Freezer", node: fx.Node) -> fx.Node:
    """Amax and max along dimensions keep the element that they chose."""
    dims = _args(node)[1] if len(_args(node)) > 1 else None
    (dim,) = dims if isinstance(dims, list | tuple) and len(dims) == 1 else (dims,)
    if not isinstance(dim, int):
        raise freezer.refusal(node)
    keepdim = bool(_args(node)[2]) if len(_args(node)) > 2 else False
    index = freezer.value(_args(node)[0]).argmax(dim, keepdim=True)
    picked = freezer.call(aten.gather.default, freezer.linear(_args(node)[0]), dim, freezer.hold(index))
    return picked if keepdim else freezer.call(aten.squeeze.dim, picked, dim)


def division(freezer: "Freezer", node: fx.Node) -> fx.Node:
    """a·(1/b) with b held where it carries data."""
    a, b = _args(node)[:2]
    if not freezer.carries(b):
        return freezer.copy(node)
    inverse = freezer.hold(1 / freezer.value(b))
    return freezer.call(aten.mul.Tensor, freezer.linear(a), inverse)


def product(freezer: "Freezer", node: fx.Node) -> fx.Node:
    """Of two factors that carry data the one that passed a non-linearity last is held; else each half the time."""
    factors = freezer.data(node)
    if len(factors) < 2 and not _squared(node, factors):
        return freezer.copy(node)
    if len(factors) > 2:
        raise freezer.refusal(node)
    a, b = factors[0], factors[-1]
    if freezer.level(a) != freezer.level(b):
        return freezer.copy(node, hold=frozenset({max(a, b, key=freezer.level)}))
    if a is b:
        raise freezer.refusal(node)
    halves = [freezer.copy(node, hold=frozenset({factor})) for factor in (a, b)]
    return freezer.call(aten.mul.Tensor, freezer.call(aten.add.Tensor, *halves), 0.5)


def choice(freezer: "Freezer", node: fx.Node) -> fx.Node:
    """where, maximum and minimum keep what they chose."""
    if str(node.target).startswith("aten.where"):
        condition, a, b = _args(node)
        return freezer.call(aten.where.self, freezer.held_or_copied(condition), *_both(freezer, node, a, b))
    a, b = _args(node)
    larger = freezer.value(a) >= freezer.value(b)
    keep = larger if "maximum" in str(node.target) else ~larger
    return freezer.call(aten.where.self, freezer.hold(keep), freezer.linear(a), freezer.linear(b))


def log_softmax(freezer: "Freezer", node: fx.Node) -> fx.Node:
    """Z − log Σ exp z with the sum held."""
    shift = freezer.value(_args(node)[0]) - freezer.result(node)
    return freezer.call(aten.sub.Tensor, freezer.linear(_args(node)[0]), freezer.hold(shift))


RULES: dict[str, Rule] = {
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "batch_norm": batch_norm,
    "scaled_dot_product_attention": attention,
    "max_pool1d": max_pool,
    "max_pool2d": max_pool,
    "max_pool3d": max_pool,
    "amax": maximum_along,
    "div": division,
    "where": choice,
    "maximum": choice,
    "minimum": choice,
    "log_softmax": log_softmax,
    **dict.fromkeys(PRODUCTS, product),
}


def _args(node: fx.Node) -> list[Any]:
    """An operator's positional arguments: nodes, numbers, lists."""
    return list(node.args)


def _given(node: fx.Node, count: int, *defaults: Any) -> list[Any]:
    """The first `count` arguments, the last ones filled with their defaults."""
    arguments = _args(node)[:count]
    missing = count - len(arguments)
    return arguments + (list(defaults[-missing:]) if missing else [])


def _normed(freezer: "Freezer", x: Any, mean: fx.Node | None, scale: Tensor, weight: Any, bias: Any) -> fx.Node:
    centred = freezer.linear(x) if mean is None else freezer.call(aten.sub.Tensor, freezer.linear(x), mean)
    return _affine(freezer, freezer.call(aten.mul.Tensor, centred, freezer.hold(scale)), weight, bias)


def _affine(freezer: "Freezer", x: fx.Node, weight: Any, bias: Any) -> fx.Node:
    if weight is not None:
        x = freezer.call(aten.mul.Tensor, x, freezer.linear(weight))
    return x if bias is None else freezer.call(aten.add.Tensor, x, freezer.linear(bias))


def _column(freezer: "Freezer", vector: Any, like: Tensor) -> Any:
    """A vector over channels, with the axes that let it multiply [batch, channels, ...]."""
    if vector is None:
        return None
    return freezer.remember(freezer.call(aten.reshape.default, freezer.linear(vector), [-1] + [1] * (like.ndim - 2)))


def _squared(node: fx.Node, factors: list[fx.Node]) -> bool:
    """Whether both factors are one node: a Gram matrix."""
    return bool(factors) and _args(node)[:2] == [factors[0]] * 2


def _both(freezer: "Freezer", node: fx.Node, *arguments: Any) -> list[Any]:
    return [freezer.linear(a) if isinstance(a, fx.Node) else a for a in arguments]

"""Arguments for each operator of the table: made from its schema where that says enough, written down otherwise."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from networks import normal

aten = torch.ops.aten
F64 = torch.float64


@dataclass(frozen=True)
class Call:
    """A call of an operator: one overload, or a function of Python's, and its arguments."""

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, changed: dict[int, Any] | None = None, **kwargs: Any) -> Any:
        """The result, with other arguments at some places."""
        args = [*self.args]
        for place, value in (changed or {}).items():
            args[place] = value
        if self._writes():
            args = [a.clone() if isinstance(a, Tensor) else a for a in args]
        torch.manual_seed(0)
        return self.target(*args, **{**self.kwargs, **kwargs})

    def _writes(self) -> bool:
        return str(self.target).split(".")[-2].endswith("_") if "." in str(self.target) else False

    def operands(self) -> list[int]:
        """The places at which tensors of floats stand, or lists of such."""
        return [place for place, value in enumerate(self.args) if tensors(value)]


def tensors(value: Any) -> list[Tensor]:
    """The floating-point and complex tensors of a value."""
    values = value if isinstance(value, list | tuple) else [value]
    return [v for v in values if isinstance(v, Tensor) and (v.dtype.is_floating_point or v.dtype.is_complex)]


def x(*shape: int, seed: int = 1) -> Tensor:
    return normal(*shape, seed=seed)


def z(*shape: int) -> Tensor:
    return torch.complex(x(*shape, seed=1), x(*shape, seed=2))


def i(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


class With(dict):
    """Arguments given by name."""


LINES, IMAGES, VOLUMES = x(2, 4, 6), x(2, 4, 5, 6), x(2, 4, 5, 6, 7)
MATRIX, SQUARE, OTHER = x(4, 6), x(4, 4, seed=3) + 3 * torch.eye(4, dtype=F64), x(4, 6, seed=4)
MASK = MATRIX > 0
ROWS = i(2, 0, 1)
PLACES = torch.tensor([[2, 0, 1, 3, 0, 1], [0, 1, 2, 0, 1, 2]])  # into four rows
C4, C4B, ONES4 = x(4, seed=5), x(4, seed=6), x(4, seed=7).abs() + 1
KERNEL = x(3, 4, 2, 2, seed=2)
ONES = torch.ones(4, dtype=F64)
C6, C6B = x(6, seed=5), x(6, seed=6)
QUERY = [x(2, 3, 4, 5, seed=seed) for seed in (1, 2, 3)]
ROOM = x(2, 3, 3, 2).tanh()  # where a grid samples: [batch, height, width, 2]
OPS: dict[str, tuple[Any, ...]] = {
    # movements
    "view": (MATRIX, [3, 8]), "reshape": (MATRIX, [3, 8]), "_unsafe_view": (MATRIX, [3, 8]), "t": (MATRIX,),
    "numpy_T": (MATRIX,), "flatten": (LINES,), "unflatten": (MATRIX, 1, [2, 3]), "permute": (LINES, [2, 0, 1]),
    "transpose": (LINES, 0, 2), "movedim": (LINES, 0, 2), "moveaxis": (LINES, [0], [2]), "swapaxes": (LINES, 0, 2),
    "swapdims": (LINES, 0, 2), "unsqueeze": (MATRIX, 1), "expand": (x(1, 6), [4, 6]),
    "broadcast_to": (x(1, 6), [4, 6]), "to": (MATRIX, F64), "roll": (MATRIX, [1], [1]), "flip": (MATRIX, [0]),
    "view_as_complex": (x(3, 2),), "view_as_real": (z(3, 2),), "mT": (MATRIX,), "mH": (MATRIX,), "adjoint": (MATRIX,),
    "expand_as": (x(1, 6), MATRIX), "view_as": (MATRIX, x(3, 8)), "reshape_as": (MATRIX, x(3, 8)),
    "_reshape_alias": (MATRIX, [3, 8], [8, 1]),
    # picks
    "slice": (MATRIX, 1, 1, 4), "select": (MATRIX, 1, 2), "narrow": (MATRIX, 1, 1, 3), "split": (MATRIX, 2, 1),
    "split_with_sizes": (MATRIX, [2, 4], 1), "unsafe_split": (MATRIX, 2, 1), "chunk": (MATRIX, 2, 1),
    "tensor_split": (MATRIX, 2, 1), "index": (MATRIX, [ROWS]), "index_select": (MATRIX, 0, ROWS),
    "masked_select": (MATRIX, MASK), "unfold": (MATRIX, 1, 3, 2), "tril": (MATRIX,), "triu": (MATRIX,),
    "repeat_interleave": (MATRIX, 2, 1), "pixel_shuffle": (IMAGES, 2), "pixel_unshuffle": (x(2, 4, 4, 6), 2),
    "channel_shuffle": (IMAGES, 2), "reflection_pad1d": (LINES, [1, 2]), "reflection_pad2d": (IMAGES, [1, 1, 2, 1]),
    "reflection_pad3d": (VOLUMES, [1] * 6), "replication_pad1d": (LINES, [1, 2]),
    "replication_pad2d": (IMAGES, [1, 1, 2, 1]), "replication_pad3d": (VOLUMES, [1] * 6),
    "max_unpool2d": (x(1, 1, 2, 2), torch.tensor([[[[0, 3], [9, 14]]]]), [4, 4]),
    "max_unpool3d": (x(1, 1, 1, 2, 2), torch.tensor([[[[[0, 3], [9, 14]]]]]), [2, 4, 4], [2, 2, 2], [0, 0, 0]),
    "meshgrid": ([C4, C6],), "broadcast_tensors": ([C6, MATRIX],), "block_diag": ([MATRIX, SQUARE],),
    "repeat": (MATRIX, [2, 1]), "tile": (MATRIX, [2, 1]), "gather": (MATRIX, 0, PLACES), "take": (MATRIX, ROWS),
    "take_along_dim": (MATRIX, PLACES, 0), "as_strided": (MATRIX, [2, 3], [6, 1]),
    **dict.fromkeys("cat concat concatenate stack hstack vstack dstack column_stack".split(), ([MATRIX, OTHER],)),
    "pad": (MATRIX, [1, 1], "constant", 3.0), "constant_pad_nd": (MATRIX, [1, 1], 3.0),
    "slice_scatter": (MATRIX, x(2, 6, seed=2), 0, 1, 3), "select_scatter": (MATRIX, C6, 0, 1),
    "diagonal_scatter": (MATRIX, C4), "index_put": (MATRIX, [ROWS], x(3, 6, seed=2)),
    "_index_put_impl": (MATRIX, [ROWS], x(3, 6, seed=2)), "masked_scatter": (MATRIX, MASK, x(4, 6, seed=2)),
    "put": (MATRIX, ROWS, x(3, seed=2)), "index_copy": (MATRIX, 0, ROWS, x(3, 6, seed=2)),
    "scatter": (MATRIX, 0, PLACES[:1], x(1, 6, seed=2)), "index_fill": (MATRIX, 0, ROWS, torch.tensor(2.0, dtype=F64)),
    "copy": (MATRIX, OTHER), "sym_size": (MATRIX, 1),
    # element by element
    "complex": (MATRIX, OTHER), "real": (z(3, 4),), "imag": (z(3, 4),), "conj": (z(3, 4),), "_conj": (z(3, 4),),
    "lerp": (MATRIX, OTHER, x(4, 6, seed=9)), "addcdiv": (MATRIX, OTHER, x(4, 6, seed=9)),
    "addcmul": (MATRIX, OTHER, x(4, 6, seed=9)), "masked_fill": (MATRIX, MASK, torch.tensor(2.0, dtype=F64)),
    "where": (MASK, MATRIX, OTHER), "polar": (MATRIX, OTHER), "clamp": (MATRIX, -0.5, 0.5), "clip": (MATRIX, -0.5, 0.5),
    "clamp_min": (MATRIX, -0.5), "clamp_max": (MATRIX, 0.5), "threshold": (MATRIX, 0.1, 0.3), "prelu": (LINES, C4),
    "threshold_backward": (MATRIX, OTHER, 0.1), "pow": (MATRIX, 3), "float_power": (MATRIX, 3),
    "xlogy": (MATRIX, ONES4[:, None]),
    "__or__": (i(1, 2, 6), i(3, 1, 2)), "__and__": (i(1, 2, 6), i(3, 1, 2)), "bitwise_and": (i(1, 2), i(3, 1)),
    "bitwise_or": (i(1, 2), i(3, 1)), "bitwise_not": (i(1, 2),), "rrelu": (MATRIX, 0.1, 0.3, False),
    **dict.fromkeys(
        "dropout alpha_dropout feature_dropout feature_alpha_dropout native_dropout".split(), (IMAGES, 0.5, False)
    ),
    "fill": (MATRIX, 2.0), "full_like": (MATRIX, 2.0), "bernoulli": (MATRIX.sigmoid(),),
    # norms
    "layer_norm": (LINES, [6], C6, C6B), "native_layer_norm": (LINES, [6], C6, C6B, 1e-5),
    "rms_norm": (LINES, [6], C6), "_fused_rms_norm": (LINES, [6], C6, 1e-5), "group_norm": (IMAGES, 2, C4, C4B),
    "native_group_norm": (IMAGES, C4, C4B, 2, 4, 30, 2, 1e-5),
    "instance_norm": (IMAGES, C4, C4B, None, None, True, 0.1, 1e-5, False),
    **dict.fromkeys(("batch_norm", "_batch_norm_impl_index"), (IMAGES, C4, C4B, C4, ONES4, False, 0.1, 1e-5, False)),
    "_native_batch_norm_legit_no_training": (IMAGES, C4, C4B, C4, ONES4, 0.1, 1e-5),
    **dict.fromkeys(
        ("_native_batch_norm_legit", "_native_batch_norm_legit_functional", "native_batch_norm"),
        (IMAGES, C4, C4B, C4, ONES4, False, 0.1, 1e-5),
    ),
    "renorm": (MATRIX, 2, 0, 0.5), "_weight_norm": (MATRIX, x(4, 1)), "_weight_norm_interface": (MATRIX, x(4, 1)),
    "frobenius_norm": (MATRIX, [1]), "linalg_matrix_norm": (MATRIX,),
    # products
    "mul": (MATRIX, OTHER), "bmm": (x(2, 3, 4), x(2, 4, 5, seed=2)), "matmul": (LINES, x(6, 3, seed=2)),
    "mm": (MATRIX, x(6, 3, seed=2)), "mv": (MATRIX, C6), "dot": (C6, C6B), "inner": (LINES, C6), "outer": (C4, C6),
    "ger": (C4, C6), "kron": (MATRIX, SQUARE), "linalg_vecdot": (MATRIX, OTHER), "vdot": (C6, C6B),
    "linalg_cross": (x(4, 3), x(4, 3, seed=2)), "cross": (x(4, 3), x(4, 3, seed=2)),
    "tensordot": (MATRIX, x(6, 3, seed=2), [1], [0]),
    "bilinear": (x(3, 4), x(3, 6, seed=2), x(5, 4, 6, seed=3), x(5, seed=4)),
    "_grouped_mm": (x(4, 8).float(), x(2, 8, 8, seed=2).float(), torch.tensor([2, 4], dtype=torch.int32)),
    "einsum": ("ij,jk->ik", [MATRIX, x(6, 3, seed=2)]),
    "linalg_multi_dot": ([MATRIX, x(6, 3, seed=2), x(3, 5, seed=3)],),
    "addbmm": (x(3, 5), x(2, 3, 4), x(2, 4, 5, seed=2)), "baddbmm": (x(2, 3, 5), x(2, 3, 4), x(2, 4, 5, seed=2)),
    "addmm": (x(4, 3), MATRIX, x(6, 3, seed=2)), "addmv": (C4, MATRIX, C6), "addr": (x(4, 6, seed=8), C4, C6),
    "linear": (LINES, x(3, 6, seed=2), x(3, seed=3)), "conv1d": (LINES, x(3, 4, 2, seed=2), x(3, seed=3)),
    "conv2d": (IMAGES, x(3, 4, 2, 2, seed=2), x(3, seed=3)),
    "conv3d": (VOLUMES, x(3, 4, 2, 2, 2, seed=2), x(3, seed=3)),
    "convolution": (IMAGES, x(3, 4, 2, 2, seed=2), x(3, seed=3), [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
    "_convolution": (IMAGES, KERNEL, C4[:3], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, False, False, True),
    "_convolution_mode": (IMAGES, x(3, 4, 2, 2, seed=2), x(3, seed=3), [1, 1], "valid", [1, 1], 1),
    "conv_transpose1d": (LINES, x(4, 3, 2, seed=2), x(3, seed=3)),
    "conv_transpose2d": (IMAGES, x(4, 3, 2, 2, seed=2), x(3, seed=3)),
    "conv_transpose3d": (VOLUMES, x(4, 3, 2, 2, 2, seed=2), x(3, seed=3)),
    "conv_tbc": (LINES, x(2, 6, 3, seed=2), x(3, seed=3)),
    # affine, and mixing
    "mean": (MATRIX, [1]), "sum": (MATRIX, [1]), "cumsum": (MATRIX, 1), "avg_pool1d": (LINES, [2]),
    "avg_pool2d": (IMAGES, [2, 2]), "avg_pool3d": (VOLUMES, [2, 2, 2]), "adaptive_avg_pool1d": (LINES, [2]),
    **dict.fromkeys(("adaptive_avg_pool2d", "_adaptive_avg_pool2d"), (IMAGES, [2, 2])),
    **dict.fromkeys(("adaptive_avg_pool3d", "_adaptive_avg_pool3d"), (VOLUMES, [2, 2, 2])), "trace": (SQUARE,),
    "im2col": (IMAGES, [2, 2], [1, 1], [0, 0], [1, 1]), "col2im": (x(2, 8, 6), [3, 4], [2, 2], [1, 1], [0, 0], [1, 1]),
    **dict.fromkeys(("upsample_nearest1d", "_upsample_nearest_exact1d"), (LINES, [9])),
    **dict.fromkeys(("upsample_nearest2d", "_upsample_nearest_exact2d"), (IMAGES, [7, 9])),
    "upsample_nearest3d": (VOLUMES, [7, 9, 8]), "upsample_linear1d": (LINES, [9], False),
    **dict.fromkeys(
        "upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa".split(),
        (IMAGES, [7, 9], False),
    ),
    "upsample_trilinear3d": (VOLUMES, [7, 9, 8], False), "_fft_r2c": (MATRIX, [1], 0, True),
    "_fft_c2c": (z(3, 4), [1], 0, True), "_fft_c2r": (z(3, 4), [1], 0, 6),
    "stft": (x(2, 16), 4, 2, 4, ONES, False, True, True),
    "istft": (torch.stft(x(2, 16), 4, window=ONES, return_complex=True), 4, 1, 4, ONES),
    "affine_grid_generator": (x(2, 2, 3), [2, 3, 4, 5], False),
    "segment_reduce": (MATRIX, "sum", With(lengths=i(2, 2), axis=0)), "index_add": (MATRIX, 0, ROWS, x(3, 6, seed=2)),
    "scatter_add": (MATRIX, 0, PLACES, x(2, 6, seed=2)), "scatter_reduce": (MATRIX, 0, PLACES, x(2, 6, seed=2), "mean"),
    "index_reduce": (MATRIX, 0, ROWS, x(3, 6, seed=2), "mean"), "grid_sampler": (IMAGES, ROOM, 0, 0, False),
    "grid_sampler_2d": (IMAGES, ROOM, 0, 0, False), "grid_sampler_3d": (VOLUMES, x(2, 2, 2, 2, 3).tanh(), 0, 0, False),
    "trapezoid": (MATRIX, OTHER), "cumulative_trapezoid": (MATRIX, OTHER), "linalg_solve": (SQUARE, MATRIX),
    "linalg_solve_triangular": (SQUARE.triu(), MATRIX, With(upper=True)),
    # choices
    "amax": (MATRIX, [1]), "amin": (MATRIX, [1]), "max": (MATRIX, 1), "min": (MATRIX, 1),
    **dict.fromkeys(("max_pool1d", "max_pool1d_with_indices", "adaptive_max_pool1d"), (LINES, [2])),
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices", "adaptive_max_pool2d"), (IMAGES, [2, 2])),
    **dict.fromkeys(("max_pool3d", "max_pool3d_with_indices", "adaptive_max_pool3d"), (VOLUMES, [2, 2, 2])),
    "fractional_max_pool2d": (IMAGES, [2, 2], [3, 3], torch.full((2, 4, 2), 0.5, dtype=F64)),
    "fractional_max_pool3d": (VOLUMES, [2, 2, 2], [3, 3, 3], torch.full((2, 4, 3), 0.5, dtype=F64)),
    "topk": (MATRIX, 2), "kthvalue": (MATRIX, 2), "median": (MATRIX, 1), "nanmedian": (MATRIX, 1), "mode": (MATRIX, 1),
    "cummax": (MATRIX, 1), "cummin": (MATRIX, 1), "sort": (MATRIX, 1), "aminmax": (MATRIX, With(dim=1)),
    # held
    **dict.fromkeys("softmax _safe_softmax special_softmax log_softmax special_log_softmax".split(), (MATRIX, 1)),
    "_softmax": (MATRIX, 1, False), "_log_softmax": (MATRIX, 1, False),
    "_masked_softmax": (x(2, 3, 4, 4), x(2, 3, 4, 4, seed=2) > 1, 3, 2),
    "logsumexp": (MATRIX, [1]), "cdist": (MATRIX, OTHER), "_cdist_forward": (MATRIX, OTHER, 2.0, None),
    "var": (MATRIX, [1]), "std": (MATRIX, [1]), "var_mean": (MATRIX, [1]), "std_mean": (MATRIX, [1]),
    **dict.fromkeys(("scaled_dot_product_attention", "_scaled_dot_product_attention_math"), tuple(QUERY)),
    **dict.fromkeys(
        "_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu".split(), tuple(QUERY)
    ),
    "_scaled_dot_product_efficient_attention": (*QUERY, None, False),
    "_scaled_dot_product_cudnn_attention": (*QUERY, None, False),
    # sizes and draws
    "zeros": ([2, 3],), "ones": ([2, 3],), "empty": ([2, 3],), "full": ([2, 3], 1.5), "arange": (4,), "eye": (3,),
    "linspace": (0.0, 1.0, 5), "new_zeros": (MATRIX, [2, 3]), "new_ones": (MATRIX, [2, 3]),
    "new_empty": (MATRIX, [2, 3]), "new_full": (MATRIX, [2, 3], 1.5), "new_empty_strided": (MATRIX, [2, 3], [3, 1]),
    "sym_stride": (MATRIX, 0), "stride": (MATRIX, 0), "as_strided_": (MATRIX, [2, 3], [6, 1]),
    "resize_": (MATRIX, [2, 3]),
    "as_strided_scatter": (MATRIX, x(2, 3, seed=2), [2, 3], [6, 1]), "as_strided_copy": (MATRIX, [2, 3], [6, 1]),
    "empty_strided": ([2, 3], [3, 1]), "set_": (MATRIX, OTHER), "rand": ([64, 64],), "randn": ([64, 64],),
    "randint": (9, [8, 8]), "randint_like": (MATRIX, 9), "randperm": (20,), "poisson": (MATRIX.exp(),),
    "normal": (MATRIX, 1.0), "normal_functional": (MATRIX,), "geometric": (MATRIX, 0.3), "log_normal": (MATRIX,),
    "multinomial": (MATRIX.exp(), 2),
    # torch's references
    "prims.reshape": (MATRIX, [3, 8]), "prims.squeeze": (x(4, 1, 6), [1]), "prims.transpose": (LINES, [2, 0, 1]),
    "prims.amax": (MATRIX, [1]), "prims.amin": (MATRIX, [1]), "prims.sum": (MATRIX, [1]),
    "prims.var": (MATRIX, [1], 1.0),
    "prims.as_strided": (MATRIX, [2, 3], [6, 1], 0), "prims.cat": ([MATRIX, OTHER], 0),
    "prims.empty": ([2, 3], With(dtype=F64, device=torch.device("cpu"), requires_grad=False)),
    "prims.full": ([2, 3], 1.5, With(dtype=F64, device=torch.device("cpu"), requires_grad=False)),
    "prims.full_like": (MATRIX, 1.5, With(dtype=F64, device=torch.device("cpu"), requires_grad=False)),
    "prims.where": (MASK, MATRIX, OTHER), "prims.pow": (MATRIX.abs(), OTHER),
}  # fmt: skip
PYTHONS: dict[str, tuple[Any, ...]] = {
    "getitem": ((MATRIX, OTHER), 0), "sym_sum": ([2, 3],), "sym_ite": (True, 2, 3), "sym_not": (True,),
}  # fmt: skip
# Kernels of a GPU alone.
ON_A_GPU = {
    aten._scaled_dot_product_flash_attention, aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_cudnn_attention,
}  # fmt: skip


def sample(key: Any) -> Call:
    """A call of an operator whose results are finite.

    Raises:
        LookupError: there are no arguments for it.
    """
    name = name_of(key)
    if not isinstance(key, torch._ops.OpOverloadPacket):
        args = (2, 3)[: 1 if name in {"neg", "abs", "ceil", "floor", "sqrt", "sym_float", "sym_int", "trunc"} else 2]
        return Call(key, PYTHONS.get(name, args), {})
    bare = name.removeprefix("prims.")
    given = OPS.get(name) or OPS.get(bare)
    tries = [given] if given else _guesses()
    for arguments in tries:
        kwargs = dict(arguments[-1]) if isinstance(arguments[-1], With) else {}
        args = tuple(argument for argument in arguments if not isinstance(argument, With))
        for overload in key.overloads():
            call = Call(getattr(key, overload), args, kwargs)
            if "out" not in overload and _works(call):
                return call
    raise LookupError(f"no arguments for {name}: write some down in tests/operator_samples.py")


def name_of(key: Any) -> str:
    """The name of a row: "add", "prims.add", "getitem"."""
    if isinstance(key, torch._ops.OpOverloadPacket):
        return str(key).removeprefix("aten.")
    return key.__name__


def _works(call: Call) -> bool:
    fresh = Call(call.target, tuple(a.clone() if isinstance(a, Tensor) else a for a in call.args), call.kwargs)
    try:
        result = fresh()
    except (RuntimeError, TypeError, ValueError, NotImplementedError, IndexError):
        return False
    if str(call.target).split(".")[1].startswith(("empty", "new_empty")):
        return True
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors(result))


def _guesses() -> list[tuple[Any, ...]]:
    """One tensor or two, of all numbers, of those between 0 and 1, of those above 1, of whole ones."""
    guesses = list[tuple[Any, ...]]()
    for domain in (_whole, _inside, _above, _numbers):
        guesses += [(domain(1),), (domain(1), domain(2))]
    return guesses


def _whole(seed: int) -> Tensor:
    return x(4, 6, seed=seed)


def _inside(seed: int) -> Tensor:
    return x(4, 6, seed=seed).sigmoid()


def _above(seed: int) -> Tensor:
    return 1.1 + x(4, 6, seed=seed).abs()


def _numbers(seed: int) -> Tensor:
    return torch.arange(1, 7) + seed

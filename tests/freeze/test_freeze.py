"""Freezing an operator: equal at the input, affine everywhere, with the Jacobian that DESIGN.md prescribes.

The oracle of a Jacobian is the formula written with .detach() on what must be held, differentiated by autograd, or for
an activation the gate written by hand. No case uses the code under test to say what it should give.
"""

import math

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812

from networks import F64, Chain, Does, Residual, error, lively, mlp, normal
from unbraid.errors import InexactError
from unbraid.form import trace
from unbraid.freeze import freeze
from unbraid.graph import Graph, Segment, Stream
from unbraid.graph.operators import Frozen
from unbraid.walk import Cotangents, constants, record, run, walk

X = normal(2, 6, seed=1)
IMAGE = normal(2, 4, 5, 5, seed=2)
TOKENS = normal(2, 4, 6, seed=3)
HEADS = normal(2, 4, 5, 6, seed=4)
W, B, C = normal(6, 6, seed=5), normal(6, seed=6), normal(2, 6, seed=7)
KERNEL = normal(3, 4, 3, 3, seed=8)


class _Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments):
        return self.function(*arguments)


def segment_of(end: str, names: tuple[str, ...], function, *arguments) -> tuple[Segment, dict[str, Tensor]]:
    """The function as torch.export sees it, and the tensors that it closes over."""
    program = torch.export.export(_Function(function), arguments, strict=False)
    lifted = program.graph_signature.inputs_to_lifted_tensor_constants
    old, graph, copies = program.graph_module.graph, fx.Graph(), {}
    inputs = sorted((n for n in old.nodes if n.op == "placeholder"), key=lambda node: node.name in lifted)
    for node in (*inputs, *(n for n in old.nodes if n.op not in {"placeholder", "output"})):
        copies[node] = graph.node_copy(node, copies.__getitem__)
    (result,) = next(n for n in old.nodes if n.op == "output").args[0]
    graph.output(copies[result])
    tensors = {f"{end}.{n.name}": program.constants[lifted[n.name]] for n in inputs if n.name in lifted}
    return Segment(end, names, (end,), fx.GraphModule(nn.Module(), graph), tuple(tensors)), tensors


def graph_of(function, *data: Tensor) -> tuple[Graph, dict[str, Tensor]]:
    names = tuple(f"x{i}" for i in range(len(data)))
    segment, tensors = segment_of("y", names, function, *data)
    streams = {name: Stream(name, dtype=F64) for name in (*names, "y")}
    return Graph(streams, (segment,), names, names, ("y",)), tensors


def frozen(function, *data: Tensor):
    """The frozen function, as a function."""
    inputs = {f"x{i}": x for i, x in enumerate(data)}
    graph, tensors = graph_of(function, *data)
    graph, state = freeze(graph, tensors, inputs)

    def affine(*moved: Tensor) -> Tensor:
        return run(graph, state, {f"x{i}": x for i, x in enumerate(moved)})["y"]

    return affine


def check_affine(affine, function, *data: Tensor) -> None:
    """Equal at the input, and affine: two equal steps change it equally, however long they are."""
    assert error(affine(*data), function(*data)) < 1e-12
    steps = [normal(*x.shape, seed=20 + i).to(x.dtype) for i, x in enumerate(data)]

    def at(t: float) -> Tensor:
        return affine(*(x + t * d for x, d in zip(data, steps, strict=True)))

    one, two = at(1.0) - at(0.0), at(2.0) - at(1.0)
    assert (one - two).abs().max() <= 1e-10 * (1 + one.abs().max())
    assert (at(-7.0) - at(0.0) + 7 * one).abs().max() <= 1e-9 * (1 + one.abs().max())


def check_jacobian(affine, reference, *data: Tensor) -> None:
    """The derivative of the frozen function is that of the formula with its held parts detached."""
    found = torch.autograd.functional.jacobian(affine, data)
    wanted = torch.autograd.functional.jacobian(reference, data)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-11 * (1 + other.abs().max())


def held(value: Tensor) -> Tensor:
    return value.detach()


# Activations: φ and the gate (φ(z) − φ(0))/z by hand.

_ROOT = math.sqrt(2 / math.pi)
_LOG2 = math.log(2)


def _gelu_new(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


def _tanh_gate(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(_ROOT * (z + 0.044715 * z**3)))


ACTIVATIONS = {
    "relu": (F.relu, lambda z: (z > 0).to(z)),
    "relu by a mask": (lambda z: z * (z > 0), lambda z: (z > 0).to(z)),
    "relu by clamp": (lambda z: z.clamp(min=0), lambda z: (z > 0).to(z)),
    "relu by maximum": (lambda z: torch.maximum(z, torch.zeros_like(z)), lambda z: (z > 0).to(z)),
    "relu squared": (lambda z: F.relu(z).square(), F.relu),
    "leaky relu": (lambda z: F.leaky_relu(z, 0.2), lambda z: torch.where(z > 0, 1.0, 0.2 * torch.ones_like(z))),
    "leaky relu by where": (
        lambda z: torch.where(z > 0, z, 0.2 * z),
        lambda z: torch.where(z > 0, 1.0, 0.2 * torch.ones_like(z)),
    ),
    "gelu": (F.gelu, lambda z: 0.5 * (1 + torch.erf(z / math.sqrt(2)))),
    "gelu tanh": (lambda z: F.gelu(z, approximate="tanh"), _tanh_gate),
    "gelu_new spelled out": (_gelu_new, _tanh_gate),
    "gelu by erf": (lambda z: z * 0.5 * (1 + torch.erf(z / 2**0.5)), lambda z: 0.5 * (1 + torch.erf(z / 2**0.5))),
    "quick gelu": (lambda z: z * torch.sigmoid(1.702 * z), lambda z: torch.sigmoid(1.702 * z)),
    "silu": (F.silu, torch.sigmoid),
    "silu by a quotient": (lambda z: z / (1 + torch.exp(-z)), torch.sigmoid),
    "mish": (F.mish, lambda z: torch.tanh(F.softplus(z))),
    "mish spelled out": (lambda z: z * F.softplus(z).tanh(), lambda z: torch.tanh(F.softplus(z))),
    "hardswish": (F.hardswish, lambda z: (z + 3).clamp(0, 6) / 6),
    "hardswish spelled out": (lambda z: z * F.relu6(z + 3) / 6, lambda z: (z + 3).clamp(0, 6) / 6),
    "sigmoid": (torch.sigmoid, lambda z: torch.tanh(z / 2) / (2 * z)),
    "tanh": (torch.tanh, lambda z: torch.tanh(z) / z),
    "soft cap": (lambda z: 30 * torch.tanh(z / 30), lambda z: 30 * torch.tanh(z / 30) / z),
    "elu": (F.elu, lambda z: torch.where(z > 0, 1.0, torch.expm1(z) / z)),
    "softplus": (F.softplus, lambda z: (torch.log1p(torch.exp(z)) - _LOG2) / z),
    "softplus spelled out": (lambda z: torch.log(1 + torch.exp(z)), lambda z: (F.softplus(z) - _LOG2) / z),
    "exp": (torch.exp, lambda z: torch.expm1(z) / z),
    "cos": (torch.cos, lambda z: (torch.cos(z) - 1) / z),
    "softsign": (F.softsign, lambda z: 1 / (1 + z.abs())),
    "abs": (torch.abs, torch.sign),
    "clamp": (lambda z: z.clamp(-0.5, 0.5), lambda z: (0.5 / z.abs()).clamp(max=1)),
    "sum of two": (lambda z: F.relu(z) + torch.tanh(z), lambda z: (z > 0) + torch.tanh(z) / z),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_becomes_its_gate(name):
    """φ(z) = φ(0) + gate·z, whether φ is one operator or spelled out."""
    function, gate = ACTIVATIONS[name]
    affine = frozen(function, X)
    check_affine(affine, function, X)
    assert error(affine(torch.zeros_like(X)), function(torch.zeros_like(X))) < 1e-12
    (jacobian,) = torch.autograd.functional.jacobian(affine, (X,))
    assert error(jacobian.reshape(12, 12), torch.diag(gate(X).to(F64).flatten())) < 1e-11


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_near_zero_the_gate_is_the_derivative(name):
    """For |z| < √eps the quotient has lost its digits; φ'(0) takes its place, on z's own side of a kink."""
    function, _ = ACTIVATIONS[name]
    z = torch.tensor([0.0, 1e-9, -1e-9, 1e-12, -1e-12, 1e-200, 1.0], dtype=F64)
    affine = frozen(function, z)
    assert (affine(z) - function(z)).abs().max() < 1e-15
    leaf = z.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(function(leaf).sum(), leaf)
    (jacobian,) = torch.autograd.functional.jacobian(affine, (z,))
    assert (jacobian.diagonal() - derivative)[:-1].abs().max() < 1e-6


@pytest.mark.parametrize("function", [F.relu, F.gelu, F.softplus, torch.abs, lambda z: F.leaky_relu(z, 0.2)])
def test_near_zero_in_float32(function):
    """In float32 √eps is 3e-4: a kink inside would cost 1e-4, the tolerance itself."""
    z = torch.tensor([3e-4, -3e-4, 1e-5, -1e-5, 1e-8, 0.0])
    assert error(frozen(function, z)(z), function(z)) < 1e-6


@pytest.mark.parametrize("function", [torch.log, torch.rsqrt, torch.reciprocal, lambda z: 1 / z, lambda z: z**-0.5])
def test_infinite_at_zero_means_constant(function):
    z = X.abs() + 0.1
    affine = frozen(function, z)
    assert error(affine(z), function(z)) < 1e-12
    assert torch.equal(affine(-5 * z), affine(z))


def test_a_bias_begins_a_new_argument():
    """relu(x·s + b) with tensors s and b: the gate is that of the sum, 1[x·s + b > 0], not the secant through x = 0."""
    affine = frozen(lambda x: F.relu(x * B + 1.5 * C), X)
    check_jacobian(affine, lambda x: held((X * B + 1.5 * C > 0).to(F64)) * (x * B + 1.5 * C), X)


def test_additions_keep_their_digits():
    """x + b is linear: as a secant, ((x + b) − b)/x would be noise beside a large b."""
    small = 1e-10 * X
    (jacobian,) = torch.autograd.functional.jacobian(frozen(lambda x: x + 1e3 * C, small), (small,))
    assert torch.equal(jacobian.reshape(12, 12), torch.eye(12, dtype=F64))


# Everything else: the function, the same with its held parts detached, and the data.

_MASK = torch.tril(torch.ones(5, 5, dtype=torch.bool))
_BIAS = normal(5, 5, seed=9)


def _rms(x):
    return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def _normed(x, dims, hold_mean=False, eps=1e-5):
    mean = x.mean(dims, keepdim=True)
    mean = held(mean) if hold_mean else mean
    return (x - mean) * held(torch.rsqrt(x.var(dims, correction=0, keepdim=True) + eps))


def _groups(x, groups):
    return _normed(x.reshape(len(x), groups, -1), (-1,)).reshape(x.shape)


def _pattern(q, k, mask=None, scale=None):
    scores = q @ k.transpose(-2, -1) * (scale or q.shape[-1] ** -0.5)
    scores = scores if mask is None else scores + mask
    return held(torch.softmax(scores, -1))


_CAUSAL = torch.zeros(5, 5, dtype=F64).masked_fill(~_MASK, -torch.inf)
Q, K, V = (normal(2, 4, 5, 6, seed=30 + i) for i in range(3))
SMALL_K, SMALL_V = normal(2, 2, 5, 6, seed=33), normal(2, 2, 5, 6, seed=34)
sdpa = F.scaled_dot_product_attention


def _grn(x):
    gx = x.norm(p=2, dim=(1, 2), keepdim=True)
    return x + B * (x * (gx / (gx.mean(-1, keepdim=True) + 1e-6))) + C[0]


def _grn_held(x):
    gx = held(x.norm(p=2, dim=(1, 2), keepdim=True))
    return x + B * (x * (gx / (gx.mean(-1, keepdim=True) + 1e-6))) + C[0]


def _gather_max(x, dim):
    return x.gather(dim, held(x).argmax(dim, keepdim=True)).squeeze(dim)


def _halves(product, a, b):
    """A product of which neither factor asks to be held."""
    return (product(a, held(b)) + product(held(a), b)) / 2


def _sample(image, grid):
    return F.grid_sample(image, grid, align_corners=False)


def _unpooled(x):
    return F.max_unpool2d(*F.max_pool2d(x[..., :4, :4], 2, return_indices=True), 2)


GRID = normal(2, 3, 3, 2, seed=44) / 3
_WEIGHT = normal(3, 6, 6, seed=45)
_PLACES = torch.tensor([0, 0, 1, 2])[None, :, None].expand(2, 4, 6)

CASES = {
    # norms
    "layer norm": (lambda x: F.layer_norm(x, (6,), B, C[0]), lambda x: _normed(x, (-1,)) * B + C[0], TOKENS),
    "layer norm over two axes": (lambda x: F.layer_norm(x, (4, 6)), lambda x: _normed(x, (-1, -2)), TOKENS),
    "layer norm, other eps": (
        lambda x: F.layer_norm(x, (6,), B, None, 0.3),
        lambda x: _normed(x, (-1,), eps=0.3) * B,
        X,
    ),
    "rms norm": (lambda x: F.rms_norm(x, (6,), B, 1e-6), lambda x: x * held(_rms(x)) * B, TOKENS),
    "rms norm spelled out": (lambda x: x * _rms(x) * B, lambda x: x * held(_rms(x)) * B, TOKENS),
    "rms norm by a power": (
        lambda x: x * torch.pow(x.pow(2).mean(-1, keepdim=True) + 1e-6, -0.5),
        lambda x: x * held(_rms(x)),
        TOKENS,
    ),
    "rms norm by a quotient": (
        lambda x: B * (x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)),
        lambda x: B * x * held(_rms(x)),
        TOKENS,
    ),
    "rms norm of an activation": (
        lambda x: F.silu(x) * _rms(F.silu(x)),
        lambda x: x * held(torch.sigmoid(x) * _rms(F.silu(x))),
        TOKENS,
    ),
    "layer norm spelled out": (
        lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) * B + C[0],
        lambda x: (x - x.mean(-1, keepdim=True)) / held(x.std(-1, keepdim=True) + 1e-6) * B + C[0],
        TOKENS,
    ),
    "layer norm by var": (
        lambda x: (x - x.mean(-1, keepdim=True)) * (x.var(-1, keepdim=True, correction=0) + 1e-5).rsqrt(),
        lambda x: _normed(x, (-1,)),
        TOKENS,
    ),
    "group norm": (lambda x: F.group_norm(x, 2), lambda x: _groups(x, 2), IMAGE),
    "group norm with weights": (
        lambda x: F.group_norm(x, 2, B[:4], C[0, :4]),
        lambda x: _groups(x, 2) * B[:4, None, None] + C[0, :4, None, None],
        IMAGE,
    ),
    "instance norm": (
        lambda x: F.instance_norm(x, weight=B[:4], bias=C[0, :4]),
        lambda x: _groups(x, 4) * B[:4, None, None] + C[0, :4, None, None],
        IMAGE,
    ),
    "batch norm, eval": (
        lambda x: F.batch_norm(x, B[:4], B[:4] ** 2 + 0.1, C[0, :4], C[1, :4]),
        lambda x: F.batch_norm(x, B[:4], B[:4] ** 2 + 0.1, C[0, :4], C[1, :4]),
        IMAGE,
    ),
    "batch norm, train": (
        lambda x: F.batch_norm(x, None, None, C[0, :4], C[1, :4], training=True),
        lambda x: _normed(x, (0, 2, 3), hold_mean=True) * C[0, :4, None, None] + C[1, :4, None, None],
        IMAGE,
    ),
    "layer norm, decomposed": (
        lambda x: torch.ops.aten.native_layer_norm(x, [6], B, C[0], 1e-5)[0],
        lambda x: _normed(x, (-1,)) * B + C[0],
        TOKENS,
    ),
    "batch norm, decomposed, eval": (
        lambda x: torch.ops.aten._native_batch_norm_legit_no_training(
            x, C[0, :4], C[1, :4], B[:4], B[:4] ** 2 + 0.1, 0.1, 1e-5
        )[0],
        lambda x: F.batch_norm(x, B[:4], B[:4] ** 2 + 0.1, C[0, :4], C[1, :4]),
        IMAGE,
    ),
    "batch norm, decomposed, train": (
        lambda x: torch.ops.aten._native_batch_norm_legit_functional(
            x, C[0, :4], C[1, :4], B[:4], B[:4] ** 2, True, 0.1, 1e-5
        )[0],
        lambda x: _normed(x, (0, 2, 3), hold_mean=True) * C[0, :4, None, None] + C[1, :4, None, None],
        IMAGE,
    ),
    "F.normalize": (lambda x: F.normalize(x, dim=-1), lambda x: x / held(x.norm(dim=-1, keepdim=True)), TOKENS),
    "GRN": (_grn, _grn_held, TOKENS[:, None]),
    # attention
    "attention by softmax": (
        lambda x: torch.softmax(x @ W @ x.mT, -1) @ x,
        lambda x: held(torch.softmax(x @ W @ x.mT, -1)) @ x,
        TOKENS,
    ),
    "attention by exp and sum": (
        lambda x: ((e := torch.exp(x @ W @ x.mT / 9)) / e.sum(-1, keepdim=True)) @ x,
        lambda x: held(torch.softmax(x @ W @ x.mT / 9, -1)) @ x,
        TOKENS,
    ),
    "attention through float casts": (
        lambda x: torch.softmax(x @ x.mT, -1, dtype=F64).to(x.dtype) @ x,
        lambda x: held(torch.softmax(x @ x.mT, -1)) @ x,
        TOKENS,
    ),
    "sdpa": (sdpa, lambda q, k, v: _pattern(q, k) @ v, Q, K, V),
    "sdpa, causal": (
        lambda q, k, v: sdpa(q, k, v, is_causal=True),
        lambda q, k, v: _pattern(q, k, _CAUSAL) @ v,
        Q,
        K,
        V,
    ),
    "sdpa, boolean mask": (lambda q, k, v: sdpa(q, k, v, _MASK), lambda q, k, v: _pattern(q, k, _CAUSAL) @ v, Q, K, V),
    "sdpa, added mask": (lambda q, k, v: sdpa(q, k, v, _BIAS), lambda q, k, v: _pattern(q, k, _BIAS) @ v, Q, K, V),
    "sdpa, scale": (lambda q, k, v: sdpa(q, k, v, scale=0.9), lambda q, k, v: _pattern(q, k, scale=0.9) @ v, Q, K, V),
    "sdpa, grouped": (
        lambda q, k, v: sdpa(q, k, v, is_causal=True, enable_gqa=True),
        lambda q, k, v: _pattern(q, k.repeat_interleave(2, 1), _CAUSAL) @ v.repeat_interleave(2, 1),
        Q,
        SMALL_K,
        SMALL_V,
    ),
    "log softmax": (
        lambda x: F.log_softmax(x, -1),
        lambda x: x - held(torch.logsumexp(x, -1, keepdim=True)),
        TOKENS,
    ),
    # maxima and choices
    "max pool": (lambda x: F.max_pool2d(x, 3, 2, 1), lambda x: F.max_pool2d(x, 3, 2, 1), IMAGE),
    "max pool, ceil": (
        lambda x: F.max_pool2d(x, 2, ceil_mode=True),
        lambda x: F.max_pool2d(x, 2, ceil_mode=True),
        IMAGE,
    ),
    "max pool 1d": (lambda x: F.max_pool1d(x, 2), lambda x: F.max_pool1d(x, 2), TOKENS),
    "adaptive max pool": (lambda x: F.adaptive_max_pool2d(x, 2), lambda x: F.adaptive_max_pool2d(x, 2), IMAGE),
    "amax": (lambda x: x.amax(1), lambda x: _gather_max(x, 1), IMAGE),
    "amax over two axes": (lambda x: x.amax((2, 3), keepdim=True), lambda x: x.amax((2, 3), keepdim=True), IMAGE),
    "amin": (lambda x: x.amin(-1), lambda x: -_gather_max(-x, -1), IMAGE),
    "max along an axis": (lambda x: x.max(-1).values, lambda x: _gather_max(x, -1), IMAGE),
    "max of all": (lambda x: x.max() * B, lambda x: x.max() * B, X),
    "sort": (lambda x: x.sort(-1).values * B, lambda x: x.gather(-1, held(x).argsort(-1)) * B, X),
    "top k": (lambda x: x.topk(3, -1).values, lambda x: x.gather(-1, held(x).topk(3, -1).indices), X),
    "an argmax used as an index": (
        lambda x: x.gather(1, (x**2).argmax(1, keepdim=True)),
        lambda x: x.gather(1, held(x**2).argmax(1, keepdim=True)),
        X,
    ),
    "maximum": (lambda x, y: torch.maximum(x, y), lambda x, y: torch.where(held(x >= y), x, y), X, C),
    "minimum": (lambda x, y: torch.minimum(x, y), lambda x, y: torch.where(held(x < y), x, y), X, C),
    "where": (lambda x, y: torch.where(x > y, x, 2 * y), lambda x, y: torch.where(held(x > y), x, 2 * y), X, C),
    "masked fill by data": (
        lambda x, y: x.masked_fill(y > 0, 3.0),
        lambda x, y: x.masked_fill(held(y > 0), 3.0),
        X,
        C,
    ),
    "clamp by tensors": (lambda x: torch.minimum(x, C[0]), lambda x: torch.where(held(x < C[0]), x, C[0]), X),
    # products of data with data
    "gate": (lambda a, b: F.silu(a) * b, lambda a, b: held(F.silu(a)) * b, X, C),
    "gate, other order": (lambda a, b: a * torch.sigmoid(b), lambda a, b: a * held(torch.sigmoid(b)), X, C),
    "gate after a cast and a slice": (
        lambda a, b: b[:, 1:] * F.gelu(a)[:, :5].reshape(2, 5),
        lambda a, b: b[:, 1:] * held(F.gelu(a)[:, :5]),
        X,
        C,
    ),
    "a mixing operation forgets": (
        lambda a, b: (F.gelu(a) @ W) * b,
        lambda a, b: 0.5 * (held(F.gelu(a) @ W) * b + ((a * held(0.5 * (1 + torch.erf(a / 2**0.5)))) @ W) * held(b)),
        X,
        C,
    ),
    "squeeze and excite": (
        lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True) * B[:4, None, None]),
        lambda x: x * held(torch.sigmoid(x.mean((2, 3), keepdim=True) * B[:4, None, None])),
        IMAGE,
    ),
    "a normed factor is no gate": (
        lambda a, b: (a * _rms(a)) * b,
        lambda a, b: (a * held(_rms(a) * b) + held(a * _rms(a)) * b) / 2,
        X,
        C,
    ),
    "bilinear": (lambda a, b: a * b, lambda a, b: (a * held(b) + held(a) * b) / 2, X, C),
    "bilinear, three": (
        lambda a, b, c: torch.einsum("bi,bi,bi->b", a, b, c),
        lambda a, b, c: (a * held(b * c) + b * held(a * c) + c * held(a * b)).sum(1) / 3,
        X,
        C,
        normal(2, 6, seed=50),
    ),
    "both activated": (
        lambda a, b: F.relu(a) * F.relu(b),
        lambda a, b: (a * held((a > 0) * F.relu(b)) + b * held((b > 0) * F.relu(a))) / 2,
        X,
        C,
    ),
    "matmul of data": (lambda a, b: a @ b, lambda a, b: (a @ held(b) + held(a) @ b) / 2, Q, V.mT),
    "Gram matrix": (lambda x: x @ x.mT, lambda x: (x @ held(x).mT + held(x) @ x.mT) / 2, TOKENS),
    "einsum of one tensor with itself": (
        lambda x: torch.einsum("bij,bkj->bik", x, x),
        lambda x: (x @ held(x).mT + held(x) @ x.mT) / 2,
        TOKENS,
    ),
    "einsum": (
        lambda a, b: torch.einsum("bhqd,bhkd->bhqk", a, b),
        lambda a, b: (a @ held(b).mT + held(a) @ b.mT) / 2,
        Q,
        K,
    ),
    "baddbmm": (
        lambda i, a, b: torch.baddbmm(i, a, b, beta=0.5, alpha=2.0),
        lambda i, a, b: 0.5 * i + (a @ held(b) + held(a) @ b),
        normal(2, 4, 4, seed=40),
        TOKENS,
        normal(2, 6, 4, seed=41),
    ),
    "linear with weights made from data": (
        lambda x, y: F.linear(x, torch.tanh(y)),
        lambda x, y: F.linear(x, held(torch.tanh(y))),
        X,
        normal(3, 6, seed=42),
    ),
    "convolution with weights made from data": (
        lambda x, k: F.conv2d(x, torch.softmax(k.flatten(1), -1).reshape(k.shape)),
        lambda x, k: F.conv2d(x, held(torch.softmax(k.flatten(1), -1).reshape(k.shape))),
        IMAGE,
        KERNEL,
    ),
    "quotient": (lambda a, b: a / b, lambda a, b: a / held(b), X, C),
    "lerp": (
        lambda a, b: torch.lerp(a, b, torch.sigmoid(a * B)),
        lambda a, b: a + held(torch.sigmoid(a * B)) * (b - a),
        X,
        C,
    ),
    # a cosine freezes both lengths; a gate, positions, a matrix to be solved are held
    "cosine": (
        lambda a, b: F.cosine_similarity(a, b, dim=-1),
        lambda a, b: _halves(lambda u, v: (u * v).sum(-1), a, b) / held(a.norm(dim=-1) * b.norm(dim=-1)),
        TOKENS,
        2 + TOKENS.flip(0),
    ),
    "cosine with a constant, broadcast": (
        lambda a: F.cosine_similarity(a[:, :, None], C[:, None, None], dim=-1),
        lambda a: (
            (a[:, :, None] * C[:, None, None]).sum(-1) / held(a.norm(dim=-1)[..., None] * C.norm(dim=-1)[:, None, None])
        ),
        TOKENS,
    ),
    "cosine of a tensor with itself": (
        lambda a: F.cosine_similarity(a[:, None], a[:, :, None], dim=-1),
        lambda a: (
            _halves(lambda u, v: (u[:, None] * v[:, :, None]).sum(-1), a, a)
            / held(a.norm(dim=-1)[:, None] * a.norm(dim=-1)[:, :, None])
        ),
        TOKENS,
    ),
    "cosine spelled out": (
        lambda a, b: (F.normalize(a, dim=-1) * F.normalize(b, dim=-1)).sum(-1),
        lambda a, b: _halves(lambda u, v: (u * v).sum(-1), a, b) / held(a.norm(dim=-1) * b.norm(dim=-1)),
        TOKENS,
        2 + TOKENS.flip(0),
    ),
    "glu": (lambda x: F.glu(x, -1), lambda x: x[..., :3] * held(x[..., 3:].sigmoid()), TOKENS),
    "glu over channels": (lambda x: F.glu(x, 1), lambda x: x[:, :2] * held(x[:, 2:].sigmoid()), IMAGE),
    "leaky relu at random, in eval mode": (
        lambda x: F.rrelu(x, 0.1, 0.3, training=False),
        lambda x: x * held(torch.where(x > 0, 1.0, 0.2 * torch.ones_like(x))),
        X,
    ),
    "sampling a grid": (lambda x: F.grid_sample(x, GRID, align_corners=False), lambda x: _sample(x, GRID), IMAGE),
    "sampling at positions made from data": (
        lambda x, g: F.grid_sample(x, torch.tanh(g), align_corners=False),
        lambda x, g: _sample(x, held(torch.tanh(g))),
        IMAGE,
        GRID,
    ),
    "a bilinear form": (
        lambda a, b: F.bilinear(a, b, _WEIGHT, B[:3]),
        lambda a, b: _halves(lambda u, v: torch.einsum("...i,kij,...j->...k", u, _WEIGHT, v), a, b),
        X,
        C,
    ),
    "cross product": (
        lambda a, b: torch.linalg.cross(a[:, :3], b[:, 3:]),
        lambda a, b: _halves(lambda u, v: torch.linalg.cross(u[:, :3], v[:, 3:]), a, b),
        X,
        C,
    ),
    "scalar products": (
        lambda a, b: torch.linalg.vecdot(a, b),
        lambda a, b: _halves(lambda u, v: (u * v).sum(-1), a, b),
        X,
        C,
    ),
    "a detached factor beside an activation": (
        lambda x: torch.tanh(x @ _WEIGHT[0]) * torch.sigmoid(x @ _WEIGHT[1]).detach(),
        lambda x: x @ _WEIGHT[0] * held(torch.tanh(x @ _WEIGHT[0]) / (x @ _WEIGHT[0]) * torch.sigmoid(x @ _WEIGHT[1])),
        X,
    ),
    "a detached factor beside a linear one": (
        lambda x: (x @ _WEIGHT[0]).detach() * (x @ _WEIGHT[1]),
        lambda x: held(x @ _WEIGHT[0]) * (x @ _WEIGHT[1]),
        X,
    ),
    "a detached matrix": (
        lambda x: torch.relu(x @ _WEIGHT[0]) @ torch.relu(x @ _WEIGHT[1]).mT.detach(),
        lambda x: x @ _WEIGHT[0] * held((x @ _WEIGHT[0] > 0) * 1.0) @ held(torch.relu(x @ _WEIGHT[1]).mT),
        X,
    ),
    "product of three": (
        lambda a, b: torch.linalg.multi_dot([a, b.mT, a]),
        lambda a, b: (a @ held(b.mT @ a) + held(a) @ b.mT @ held(a) + held(a @ b.mT) @ a) / 3,
        X,
        C,
    ),
    "addcdiv": (
        lambda i, a, b: torch.addcdiv(i, a, b, value=2.0),
        lambda i, a, b: i + 2 * a / held(b),
        X,
        C,
        3 + X.flip(0),
    ),
    "a system of equations": (
        lambda a, b: torch.linalg.solve(a @ a.mT + torch.eye(4, dtype=F64), b),
        lambda a, b: held(torch.linalg.inv(a @ a.mT + torch.eye(4, dtype=F64))) @ b,
        TOKENS,
        TOKENS.flip(0),
    ),
    "deviation and mean": (
        lambda x: torch.cat([x, *torch.std_mean(x, -1, keepdim=True)], -1),
        lambda x: torch.cat([x, held(x.std(-1, keepdim=True)), x.mean(-1, keepdim=True)], -1),
        TOKENS,
    ),
    "smallest and largest": (
        lambda x: torch.cat([*torch.aminmax(x, dim=-1)], -1),
        lambda x: torch.cat([-_gather_max(-x, -1), _gather_max(x, -1)], -1),
        TOKENS,
    ),
    "largest of what is scattered": (
        lambda x: torch.zeros(2, 3, 6, dtype=F64).scatter_reduce(1, _PLACES, x, "amax", include_self=False),
        lambda x: torch.stack([_gather_max(x[:, :2], 1), x[:, 2], x[:, 3]], 1),
        TOKENS,
    ),
    "mean of what is scattered": (
        lambda x: torch.zeros(2, 3, 6, dtype=F64).scatter_reduce(1, _PLACES, x, "mean", include_self=False),
        lambda x: torch.stack([x[:, :2].mean(1), x[:, 2], x[:, 3]], 1),
        TOKENS,
    ),
    "smallest by index": (
        lambda x: (5 + torch.zeros(2, 3, 6, dtype=F64)).index_reduce(1, torch.tensor([0, 0, 1, 2]), x, "amin"),
        lambda x: torch.stack([-_gather_max(-x[:, :2], 1), x[:, 2], x[:, 3]], 1),
        TOKENS,
    ),
    "unpooling": (
        lambda x: F.max_unpool2d(*F.max_pool2d(x[..., :4, :4], 2, return_indices=True), 2),
        lambda x: x[..., :4, :4] * held((_unpooled(x) != 0).to(F64)),
        IMAGE,
    ),
    "the most frequent and the middle": (
        lambda x: torch.cat([x.nanmedian(-1).values, x.mode(-1).values], -1),
        lambda x: torch.cat([x.sort(-1).values[..., 2], -_gather_max(-x, -1)], -1),
        TOKENS,
    ),
    # linear ones, which stay as they are
    "cat of several": (lambda a, b: torch.cat([a, 2 * b, C], 1), lambda a, b: torch.cat([a, 2 * b, C], 1), X, C),
    "split and chunk": (
        lambda x: torch.cat([*reversed(x.split([1, 2, 3], -1)), *x.chunk(2, -1)], -1),
        lambda x: torch.cat([x[..., 3:], x[..., 1:3], x[..., :1], x], -1),
        X,
    ),
    "slices and indices": (lambda x: x[:, [3, 0, 0]] + x[:, 1:4], lambda x: x[:, [3, 0, 0]] + x[:, 1:4], X),
    "functional copy": (
        lambda x: torch.ops.aten.copy(torch.zeros(3, 2, 6, dtype=F64), x),
        lambda x: x.expand(3, 2, 6),
        X,
    ),
    "roll, flip, pad": (
        lambda x: F.pad(x.roll(1, 2).flip(3), (1, 2, 0, 1), value=2.0),
        lambda x: F.pad(x.roll(1, 2).flip(3), (1, 2, 0, 1)),
        IMAGE,
    ),
    "reflection pad": (lambda x: F.pad(x, (1, 1, 1, 1), "reflect"), lambda x: F.pad(x, (1, 1, 1, 1), "reflect"), IMAGE),
    "convolution": (lambda x: F.conv2d(x, KERNEL, B[:3]), lambda x: F.conv2d(x, KERNEL), IMAGE),
    "average pool": (lambda x: F.avg_pool2d(x, 2), lambda x: F.avg_pool2d(x, 2), IMAGE),
    "bilinear upsampling": (
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        IMAGE,
    ),
    "bicubic upsampling": (
        lambda x: F.interpolate(x, (7, 8), mode="bicubic"),
        lambda x: F.interpolate(x, (7, 8), mode="bicubic"),
        IMAGE,
    ),
    "nearest upsampling": (lambda x: F.interpolate(x, (7, 8)), lambda x: F.interpolate(x, (7, 8)), IMAGE),
    "Fourier transform, real part": (lambda x: torch.fft.fft2(x).real, lambda x: torch.fft.fft2(x).real, TOKENS),
    "Fourier filter": (
        lambda x: torch.fft.irfft(torch.fft.rfft(x) * torch.complex(B[:4], C[0, :4]), n=6),
        lambda x: torch.fft.irfft(torch.fft.rfft(x) * torch.complex(B[:4], C[0, :4]), n=6),
        TOKENS,
    ),
    "rotary embedding by complex numbers": (
        lambda x: torch.view_as_real(torch.view_as_complex(x.reshape(2, 4, 3, 2)) * torch.polar(C[0, :3].abs(), B[:3])),
        lambda x: torch.view_as_real(torch.view_as_complex(x.reshape(2, 4, 3, 2)) * torch.polar(C[0, :3].abs(), B[:3])),
        TOKENS,
    ),
    "cumulative sum": (lambda x: x.cumsum(1), lambda x: x.cumsum(1), X),
    "sizes are numbers": (lambda x: x * (F.relu(x).shape[1] ** -0.5), lambda x: x * 6**-0.5, X),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_becomes_affine_by_its_rule(name):
    function, reference, *data = CASES[name]
    affine = frozen(function, *data)
    check_affine(affine, function, *data)
    check_jacobian(affine, reference, *data)


@pytest.mark.parametrize(
    "dropout", [F.dropout, lambda x: F.dropout(x.relu()), lambda x: x * F.dropout(x.new_ones(2, 6))]
)
def test_dropout_holds_its_mask(dropout):
    """In train mode the draw is part of the input at which the map is frozen."""
    torch.manual_seed(3)
    affine = frozen(dropout, X)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        wanted = dropout(X)
    assert error(affine(X), wanted) < 1e-12
    check_affine(affine, lambda x: wanted, X)
    assert (wanted == 0).any()


def test_attention_with_dropout_is_refused():
    with pytest.raises(InexactError, match=r"scaled_dot_product_attention\.default affine with dropout; use eval mode"):
        frozen(lambda q, k, v: sdpa(q, k, v, dropout_p=0.1), Q, K, V)


def test_what_a_softmax_swallows_needs_no_rule():
    """Scores may be anything, here a product of cumulative products: only the pattern that comes of them is kept."""

    def function(x):
        return torch.softmax(x.cumprod(-1) @ x.mT, -1) @ x

    affine = frozen(function, TOKENS)
    check_jacobian(affine, lambda x: held(torch.softmax(x.cumprod(-1) @ x.mT, -1)) @ x, TOKENS)


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (lambda x: x.cumprod(-1), r"aten\.cumprod\.default"),
        (lambda x: torch.linalg.inv(x @ x.mT), r"aten\.linalg_inv\.default"),
        (lambda x: torch.atan2(x, x.roll(1, -1)), r"aten\.atan2\.default"),
        (lambda x: torch.fft.fft(x).abs(), r"aten\.abs\.default"),
        (lambda x: F.layer_norm(x, (6,), x[0, 0]), r"aten\.layer_norm\.default affine where its weight or bias is"),
    ],
)
def test_an_operator_without_a_rule_is_named(function, operator):
    with pytest.raises(InexactError, match=operator):
        frozen(function, TOKENS)


IMAGES_MEAN = IMAGE.mean((0, 2, 3))
ONES = torch.ones(4, dtype=F64)
AT = torch.tensor([[2, 0, 1, 3, 0, 1]])


@pytest.mark.parametrize(
    ("function", "data", "refusal"),
    [
        (
            lambda x: torch.scatter(W, 0, AT, x[:1], reduce="multiply"),
            X,
            r"aten\.scatter\.reduce affine in these operands, with these options",
        ),
        (
            lambda x: torch.segment_reduce(x, "max", lengths=torch.tensor([1, 1])),
            X,
            r"aten\.segment_reduce\.default affine in these operands, with these options",
        ),
        (
            lambda x: F.batch_norm(IMAGE, IMAGES_MEAN, x[0].square() + 1, ONES, ONES),
            W[:4, :4],
            r"aten\.batch_norm\.default affine where its weight or bias is computed from data",
        ),
        (
            lambda x: F.bilinear(X[:, :4], x[:, :4], x[:1, :1, None] * KERNEL[:, :, 0, 0].new_ones(1, 4, 4)),
            X,
            r"aten\.bilinear\.default affine where more than two of its factors are computed from data",
        ),
    ],
    ids=["multiplied into", "largest of segments", "variance from data", "three factors"],
)
def test_what_is_not_affine_in_all_that_carries_data_is_refused(function, data, refusal):
    """Each is equal at the input if it is left as it is, and no affine map: paths through it would have no sum."""
    with pytest.raises(InexactError, match=refusal):
        frozen(function, data.contiguous())


def test_the_refusal_names_the_module():
    """Of two blocks the second has a branch that no rule covers."""
    strange = Does(lambda self, x: self.lin(x).cumprod(-1), lin=nn.Linear(6, 6))
    form = trace(lively(Chain(Residual(mlp(6)), Residual(strange))), X)
    with pytest.raises(InexactError, match=r"aten\.cumprod\.default affine, in 'blocks\.1\.branch'") as caught:
        freeze(form.graph, form.state, form.inputs(X))
    assert caught.value.where == "aten.cumprod.default in blocks.1.branch"


# Across the cuts between segments.


def pieces(first, second, x: Tensor) -> tuple[Graph, dict[str, Tensor]]:
    """x ↦ second(first(x), x) in two segments, with what lies between as a stream of its own."""
    between = first(x)
    one, tensors = segment_of("m", ("x",), first, x)
    two, others = segment_of("y", ("m", "x"), second, between, x)
    streams = {name: Stream(name, dtype=dtype) for name, dtype in (("x", F64), ("m", between.dtype), ("y", F64))}
    return Graph(streams, (one, two), ("x",), ("x",), ("y",)), tensors | others


ACROSS = {
    "a pattern": (
        lambda x: torch.softmax(x @ x.mT, -1),
        lambda m, x: m @ x,
        lambda x: held(torch.softmax(x @ x.mT, -1)) @ x,
    ),
    "a gate": (F.silu, lambda m, x: m * (x @ W), lambda x: held(F.silu(x)) * (x @ W)),
    "a norm's scale": (_rms, lambda m, x: x * m, lambda x: x * held(_rms(x))),
    "a standard deviation": (
        lambda x: x.std(-1, keepdim=True),
        lambda m, x: x * m + m,
        lambda x: x * held(x.std(-1, keepdim=True)),
    ),
}


@pytest.mark.parametrize("name", ACROSS)
def test_a_rule_reaches_across_a_cut(name):
    """What one segment holds, or gates, the next one knows."""
    first, second, reference = ACROSS[name]
    inputs = {"x": TOKENS}
    graph, tensors = pieces(first, second, TOKENS)
    graph, state = freeze(graph, tensors, inputs)

    def affine(x):
        return run(graph, state, {"x": x})["y"]

    check_affine(affine, lambda x: second(first(x), x), TOKENS)
    check_jacobian(affine, reference, TOKENS)
    seed = normal(*affine(TOKENS).shape, seed=60)
    tape = record(graph, state, inputs)
    found = walk(graph, Cotangents(graph, tape), {"y": seed}, ["x", "m", "y"])
    leaf = TOKENS.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(reference(leaf), leaf, seed)
    assert error(found["x"], wanted) < 1e-12
    pairs = list(constants(graph, state, tape.values))
    own = sum((found[stream] * value).sum() for stream, value in pairs if stream in found)
    assert error((found["x"] * TOKENS).sum() + own, (seed * affine(TOKENS)).sum()) < 1e-12


def test_an_index_that_data_chose_is_held_across_a_cut():
    first, second = (lambda x: x[:, 0].argmax(-1)), (lambda m, x: x[:, :, m])
    graph, state = freeze(*pieces(first, second, TOKENS), {"x": TOKENS})
    assert torch.equal(run(graph, state, {"x": -TOKENS})["y"], second(first(TOKENS), -TOKENS))
    assert not torch.equal(first(TOKENS), first(-TOKENS))


def test_what_is_held_twice_is_stored_once_and_what_is_unused_not_at_all():
    """The patterns of two readers, and scores that only a softmax reads."""

    def function(x):
        scores = x @ x.mT
        pattern = torch.softmax(scores, -1)
        return pattern @ x + pattern @ x.roll(1, 1)

    _, state = freeze(*graph_of(function, TOKENS), {"x0": TOKENS})
    assert [tuple(tensor.shape) for tensor in state.values()] == [(2, 4, 4)]


def test_the_check_sees_a_gate_left_live(monkeypatch):
    """Call sigmoid linear and the frozen map is no longer affine: check_affine must object."""
    from unbraid.freeze import _rules

    affine = frozen(lambda a, b: torch.sigmoid(a) * b, X, C)
    check_affine(affine, lambda a, b: torch.sigmoid(a) * b, X, C)
    monkeypatch.setitem(_rules.RULES, Frozen.PRODUCT, lambda freezer, node: freezer.call(node.target, *node.args))
    broken = frozen(lambda a, b: torch.sigmoid(a) * b, X, C)
    with pytest.raises(AssertionError):
        check_affine(broken, lambda a, b: torch.sigmoid(a) * b, X, C)

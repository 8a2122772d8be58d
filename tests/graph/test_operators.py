"""The table of operators, checked by running the operators: shape-only, affine and pointwise are what they claim."""

import pytest
import torch
from torch import fx

from networks import normal
from unbraid.graph.questions import Carrier, affine, carrier, is_float, jointly_affine, mixing, name_of, shape_only

aten = torch.ops.aten
W = normal(6, 6, seed=1)
ROWS = torch.tensor([3, 0, 3, 1])

SHAPE = {
    "view": lambda x: aten.view.default(x, [4, 2, 3]),
    "permute": lambda x: aten.permute.default(x, [1, 0]),
    "transpose": lambda x: aten.transpose.int(x, 0, 1),
    "unsqueeze": lambda x: aten.unsqueeze.default(x, 1),
    "clone": lambda x: aten.clone.default(x),
    "roll": lambda x: aten.roll.default(x, [1], [1]),
    "flip": lambda x: aten.flip.default(x, [0]),
    "flatten": lambda x: aten.flatten.using_ints(x, 0, 1),
    "contiguous": lambda x: aten.contiguous.default(x),
    "dropout": lambda x: aten.dropout.default(x, 0.5, False),
    "slice": lambda x: aten.slice.Tensor(x, 1, 0, 2**63 - 1),
}

AFFINE = {
    "linear": lambda x: aten.linear.default(x, W),
    "slice": lambda x: aten.slice.Tensor(x, 1, 1, 4),
    "select": lambda x: aten.select.int(x, 1, 2),
    "mean": lambda x: aten.mean.dim(x, [1]),
    "pad": lambda x: aten.pad.default(x, [1, 1], "constant", 2.0),
    "mul": lambda x: aten.mul.Tensor(x, 3.0),
    "add": lambda x: aten.add.Tensor(x, 2.0),
    "div": lambda x: aten.div.Tensor(x, 2.0),
    "neg": lambda x: aten.neg.default(x),
    "repeat": lambda x: aten.repeat.default(x, [2, 1]),
    "avg_pool1d": lambda x: aten.avg_pool1d.default(x, [2]),
    "cat": lambda x: aten.cat.default([x]),
    "matmul": lambda x: aten.matmul.default(x, W),
    "mm": lambda x: aten.mm.default(W[:, :4], x),
    "einsum": lambda x: aten.einsum.default("ij,jk->ki", [x, W]),
    "sum": lambda x: aten.sum.dim_IntList(x, [1]),
    "cumsum": lambda x: aten.cumsum.default(x, 1),
    "rsub": lambda x: aten.rsub.Scalar(x, 1.0),
    "lerp": lambda x: aten.lerp.Scalar(x, W[:4], 0.3),
    "where": lambda x: aten.where.self(W[:4] > 0, x, W[:4]),
    "masked_fill": lambda x: aten.masked_fill.Scalar(x, W[:4] > 0, 2.0),
    "addmm": lambda x: aten.addmm.default(W[0], x, W, beta=2, alpha=3),
    "addcmul": lambda x: aten.addcmul.default(x, W[:4], W[:4]),
    "addcdiv": lambda x: aten.addcdiv.default(x, W[:4], W[:4]),
    "index_add": lambda x: aten.index_add.default(W, 0, ROWS, x),
    "index_copy": lambda x: aten.index_copy.default(W, 0, ROWS, x),
    "index_put": lambda x: aten.index_put.default(W, [ROWS], x, True),
    "scatter_add": lambda x: aten.scatter_add.default(W, 0, ROWS[:, None].expand(4, 6), x),
    "scatter_reduce": lambda x: aten.scatter_reduce.two(W, 0, ROWS[:, None].expand(4, 6), x, "mean"),
    "slice_scatter": lambda x: aten.slice_scatter.default(W, x, 0, 1, 5),
    "index_select": lambda x: aten.index_select.default(x, 0, ROWS),
    "gather": lambda x: aten.gather.default(x, 1, ROWS[:, None]),
    "fft_fft": lambda x: aten.fft_fft.default(x),
    "tril": lambda x: aten.tril.default(x),
}

POINTWISE = {
    name: lambda x, op=op: op(x)
    for name, op in {
        "relu": aten.relu.default, "gelu": aten.gelu.default, "silu": aten.silu.default, "tanh": aten.tanh.default,
        "sigmoid": aten.sigmoid.default, "erf": aten.erf.default, "exp": aten.exp.default, "sin": aten.sin.default,
        "softplus": aten.softplus.default, "hardswish": aten.hardswish.default, "abs": aten.abs.default,
        "mish": aten.mish.default, "elu": aten.elu.default, "leaky_relu": aten.leaky_relu.default,
    }.items()
}  # fmt: skip

MIXING = {
    "matmul": lambda x: aten.matmul.default(x, W),
    "linear": AFFINE["linear"],
    "softmax": lambda x: aten.softmax.int(x, 1),
    "layer_norm": lambda x: aten.layer_norm.default(x, [6]),
    "mean": AFFINE["mean"],
    "sum": lambda x: aten.sum.dim_IntList(x, [1]),
    "cumsum": lambda x: aten.cumsum.default(x, 1),
    "avg_pool1d": AFFINE["avg_pool1d"],
    "max_pool1d": lambda x: aten.max_pool1d.default(x, [2]),
    "fft": lambda x: aten.fft_fft.default(x),
}

X = normal(4, 6)


def node_of(function):
    """The operator's node, as it stands in an exported graph: x is the only tensor."""

    class Call(torch.nn.Module):
        def forward(self, x):
            return function(x)

    graph = fx.symbolic_trace(Call()).graph
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    return nodes[-1], next(node for node in graph.nodes if node.op == "placeholder")


def touched(function, at=3):
    """How many elements of the result change with one element of x."""
    other = X.clone().view(-1)
    other[at] += 0.1
    a, b = function(X), function(other.view(X.shape))
    return int((a != b).sum())


@pytest.mark.parametrize("name", SHAPE)
def test_shape_only_operators_move_elements(name):
    node, x = node_of(SHAPE[name])
    assert name_of(node) == name
    assert shape_only(node)
    assert affine(node, [x])
    assert not mixing(node)
    assert SHAPE[name](X).flatten().sort().values.equal(X.flatten().sort().values)


@pytest.mark.parametrize("name", AFFINE)
def test_affine_operators_are_affine(name):
    """f(a) + f(b) = f(a + b) + f(0)."""
    f = AFFINE[name]
    node, x = node_of(f)
    assert name_of(node) == name
    assert affine(node, [x])
    assert not shape_only(node)
    a, b = X, normal(4, 6, seed=2)
    torch.testing.assert_close(f(a) + f(b), f(a + b) + f(torch.zeros_like(a)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_operators_mix_nothing(name):
    node, x = node_of(POINTWISE[name])
    assert name_of(node) == name
    assert not mixing(node)
    assert not affine(node, [x])
    assert touched(POINTWISE[name]) == 1


@pytest.mark.parametrize("name", MIXING)
def test_mixing_operators_mix(name):
    """Some element of the result depends on two elements of x."""
    f = MIXING[name]
    node, _ = node_of(f)
    assert mixing(node)
    jacobian = torch.func.jacrev(lambda x: torch.view_as_real(f(x)) if f(x).is_complex() else f(x))(X)
    if name != "max_pool1d":  # its derivative sees the winner alone
        assert (jacobian.flatten(-2) != 0).sum(-1).max() > 1


def test_dropout_in_train_mode_computes():
    node, _ = node_of(lambda x: aten.dropout.default(x, 0.5, True))
    assert not shape_only(node)


def test_a_product_of_two_data_is_not_affine():
    graph = fx.Graph()
    a, b = graph.placeholder("a"), graph.placeholder("b")
    for target in (aten.mul.Tensor, aten.matmul.default, aten.add.Tensor):
        node = graph.call_function(target, (a, b))
        assert not affine(node, [a, b])
    assert jointly_affine(graph.call_function(aten.add.Tensor, (a, b)), [a, b])
    assert jointly_affine(graph.call_function(aten.cat.default, ([a, b],)), [a, b])
    assert not jointly_affine(graph.call_function(aten.mul.Tensor, (a, b)), [a, b])


def test_data_in_a_weights_place_is_not_affine():
    """linear(w, h): the data are the matrix; div(c, h): the data are below."""
    graph = fx.Graph()
    data, weight = graph.placeholder("data"), graph.placeholder("weight")
    assert affine(graph.call_function(aten.linear.default, (data, weight)), [data])
    assert not affine(graph.call_function(aten.linear.default, (weight, data)), [data])
    assert not affine(graph.call_function(aten.div.Tensor, (weight, data)), [data])


def test_floats_and_complex_numbers_are_data():
    graph = fx.Graph()
    node = graph.placeholder("x")
    for value, expected in (
        (torch.zeros(1), True),
        (torch.zeros(1, dtype=torch.complex64), True),
        (torch.zeros(1, dtype=torch.bfloat16), True),
        (torch.zeros(1, dtype=torch.int64), False),
        (torch.zeros(1, dtype=torch.bool), False),
        ((torch.zeros(1, dtype=torch.int64), torch.zeros(1)), True),
        (None, False),
    ):
        node.meta["val"] = value
        assert is_float(node) is expected


NO_AFFINE = {
    "square": lambda x: aten.mul.Tensor(x, x),
    "floor": lambda x: aten.div.Tensor_mode(x, 2.0, rounding_mode="floor"),
    "reciprocal": lambda x: aten.div.Tensor(1.0, x),
    "product": lambda x: aten.scatter_reduce.two(W, 0, ROWS[:, None].expand(4, 6), x, "prod"),
    "multiplied": lambda x: aten.scatter.reduce(W, 0, ROWS[:, None].expand(4, 6), x, reduce="multiply"),
}


@pytest.mark.parametrize("name", NO_AFFINE)
def test_what_is_not_affine_in_this_place_or_with_this_option(name):
    node, x = node_of(NO_AFFINE[name])
    assert not affine(node, [x])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", Carrier.MIXING),
        ("matmul", Carrier.MIXING),
        ("mul", Carrier.SCALED),
        ("neg", Carrier.SCALED),
        ("slice", Carrier.PICK),
        ("pad", Carrier.PICK),
        ("gather", None),
    ],
)
def test_how_strongly_an_operator_carries(name, expected):
    node, x = node_of(AFFINE[name])
    assert carrier(node, [x]) is expected


def test_a_norm_carries_where_its_scale_is_held():
    node, x = node_of(MIXING["layer_norm"])
    assert carrier(node, [x], held=True) is Carrier.SCALED
    assert carrier(node, [x], held=False) is None


JOINTLY = {
    "addmm": (lambda a, b: aten.addmm.default(a, b, W), lambda a, b: aten.addmm.default(a, b, b)),
    "index_add": (lambda a, b: aten.index_add.default(a, 0, ROWS, b), None),
    "where": (lambda a, b: aten.where.self(ROWS[:, None] > 0, a, b), None),
    "lerp": (lambda a, b: aten.lerp.Scalar(a, b, 0.3), lambda a, b: aten.lerp.Tensor(a, b, b)),
    "stack": (lambda a, b: aten.stack.default([a, b]), None),
    "matmul": (None, lambda a, b: aten.matmul.default(a, b)),
    "einsum": (None, lambda a, b: aten.einsum.default("ij,ij->i", [a, b])),
}


@pytest.mark.parametrize("name", JOINTLY)
def test_what_is_affine_in_two_operands_at_once(name):
    for function, expected in zip(JOINTLY[name], (True, False), strict=True):
        if function is None:
            continue

        class Call(torch.nn.Module):
            def forward(self, a, b):
                return function(a, b)  # noqa: B023

        graph = fx.symbolic_trace(Call()).graph
        a, b = (node for node in graph.nodes if node.op == "placeholder")
        (node,) = (node for node in graph.nodes if node.op == "call_function")
        assert jointly_affine(node, [a, b]) is expected

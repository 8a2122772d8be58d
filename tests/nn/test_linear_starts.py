"""Orthogonal and looks-linear weights: what Saxe et al. (2014) and Balduzzi et al. (2017) derive from them."""

import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unbraid import trace
from unbraid.nn import Order, build, conv1d, conv2d, mlp
from unbraid.nn.init import initialise_, looks_linear_, orthogonal_

F64 = torch.float64


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=draws(seed), dtype=F64)


@pytest.mark.parametrize("shape", [(6, 6), (4, 7), (7, 4), (6, 2, 3), (3, 4, 3, 3), (40, 2, 3, 3)])
@pytest.mark.parametrize("gain", [1.0, 2**0.5])
def test_orthogonal_weights_are(shape, gain):
    weight = torch.empty(shape, dtype=F64)
    assert orthogonal_(weight, gain=gain, generator=draws()) is weight
    matrix = weight.flatten(1)
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    torch.testing.assert_close(product, gain**2 * torch.eye(len(product), dtype=F64), rtol=0, atol=1e-12)


def test_a_deep_linear_network_is_an_isometry_with_orthogonal_weights_alone():
    """Saxe et al. (2014): all singular values of the product of 50 layers are 1."""

    def spread(init):
        network = mlp(inputs=12, width=12, depth=50, classes=12, order="linear +", init=init, generator=draws())
        layers = [block.branch[0] for block in network.double().blocks]
        product = torch.linalg.multi_dot([layer.weight for layer in layers])
        values = torch.linalg.svdvals(product)
        return (values.max() / values.min()).item()

    assert spread("orthogonal") == pytest.approx(1, abs=1e-4)  # drawn in float32
    assert spread("glorot") > 1e6


def test_mirrored_weights_have_a_block_of_w_and_minus_w_for_each_pair():
    both, first, last = torch.empty(4, 6), torch.empty(4, 3), torch.empty(5, 6)
    looks_linear_(both, generator=draws())
    w = both[::2, ::2]
    assert torch.equal(both, torch.kron(w, torch.tensor([[1.0, -1.0], [-1.0, 1.0]])))
    torch.testing.assert_close(w @ w.T, torch.eye(2))
    looks_linear_(first, mirror="outputs", generator=draws())
    assert torch.equal(first[::2], -first[1::2])
    looks_linear_(last, mirror="inputs", generator=draws())
    assert torch.equal(last[:, ::2], -last[:, 1::2])


def linear(network, *shape):
    """‖f(ax + by) − a f(x) − b f(y)‖∞ / ‖f(x)‖∞."""
    network = network.double().eval()
    x, y = normal(*shape), normal(*shape, seed=1)
    with torch.no_grad():
        whole = network(0.7 * x - 1.9 * y)
        return ((whole - 0.7 * network(x) + 1.9 * network(y)).abs().max() / network(x).abs().max()).item()


@settings(max_examples=40, deadline=None)
@given(
    make=st.sampled_from((mlp, conv1d, conv2d)),
    repeats=st.integers(1, 3),
    activation=st.sampled_from(("relu", "leaky_relu", "gelu", "silu")),
    scale=st.sampled_from((1.0, 0.5, "1/sqrt(K)", "layerscale")),
    shortcut=st.sampled_from(("pad", "projection", "projection_everywhere", "half", "dropout")),
    norm_first=st.booleans(),
    plain=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_looks_linear_networks_are_exactly_linear(make, repeats, activation, scale, shortcut, norm_first, plain, seed):
    order = Order(f"{'norm ' * norm_first}act {'linear' if make is mlp else 'conv'} +").repeat(repeats)
    shortcut = "identity" if make is mlp and shortcut in ("pad", "projection") else shortcut
    size = {"depth": 4} if make is mlp else {"layers": 4 * repeats + 2, "stages": 2}
    options = {"order": order, "activation": activation, "norm": None, "scale": scale, "shortcut": shortcut}
    network = make(
        inputs=3, width=6, classes=5, bias=False, init="looks_linear", generator=draws(seed), **options, **size
    )
    network = network.plain() if plain else network
    shape = {mlp: (4, 3), conv1d: (4, 3, 9), conv2d: (4, 3, 6, 5)}[make]
    assert linear(network, *shape) < 1e-12


def test_the_measure_sees_a_network_that_is_not_linear():
    assert linear(mlp(inputs=3, width=6, bias=False, generator=draws()), 4, 3) > 0.05


def test_the_linear_map_is_the_product_of_the_halved_layers():
    """f(x) = U (I + w_3)(I + w_2)(I + w_1) V x, with the w read off the pairs by hand."""
    network = mlp(inputs=3, width=8, depth=3, classes=5, norm=None, bias=False, init="looks_linear", generator=draws())
    network.double()
    stream = network.stem.weight[::2]
    for block in network.blocks:
        stream = stream + block.branch[1].weight[::2, ::2] @ stream
    x = normal(4, 3)
    # The head reads u and −u, both: its columns are half of U's.
    torch.testing.assert_close(network(x), x @ (2 * network.head.weight[:, ::2] @ stream).T, rtol=1e-10, atol=1e-12)
    u = 2 * network.head.weight[:, ::2]
    torch.testing.assert_close(u.T @ u, torch.eye(4, dtype=F64), rtol=0, atol=1e-6)


def test_at_rest_a_batch_norm_keeps_it_linear():
    network = conv2d(inputs=2, layers=8, width=4, order="norm act conv norm act conv +", init="looks_linear")
    assert linear(network, 4, 2, 8, 8) < 1e-12


@pytest.mark.parametrize("init", ["orthogonal", "looks_linear"])
@pytest.mark.parametrize("make", [mlp, conv1d, conv2d])
def test_they_draw_from_their_generator_alone_and_survive_json(make, init):
    options = {"depth": 3} if make is mlp else {"layers": 8, "order": "norm act conv norm act conv +"}
    before = torch.get_rng_state()
    network = make(init=init, generator=draws(5), **options)
    assert torch.equal(torch.get_rng_state(), before)
    again = build(json.loads(json.dumps(network.config)), generator=draws(5))
    assert all(map(torch.equal, again.state_dict().values(), network.state_dict().values()))
    other = make(init=init, generator=draws(6), **options)
    assert not torch.equal(next(other.parameters()), next(network.parameters()))
    with torch.device("meta"):
        assert {p.device.type for p in make(init=init, **options).parameters()} == {"meta"}


def test_looks_linear_networks_are_traced():
    network = mlp(inputs=3, width=6, depth=4, init="looks_linear", generator=draws()).double().eval()
    form = trace(network, (normal(2, 3),))
    assert [block.skip for block in form.blocks] == ["identity"] * 4
    assert form.error < 1e-12


def test_a_module_of_ones_own_takes_them_too():
    branch = nn.Sequential(nn.ReLU(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    initialise_(branch, init="looks_linear", generator=draws())
    u = torch.randn(5, 2)
    pairs = torch.stack([u, -u], -1).flatten(1)
    out = branch(pairs)
    torch.testing.assert_close(out[:, ::2], -out[:, 1::2])
    torch.testing.assert_close(out[:, ::2], u @ (branch[3].weight[::2, ::2] @ branch[1].weight[::2, ::2]).T)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (mlp, {"width": 5}, "looks_linear_: outputs come in pairs u, −u, but there are 5; take an even number."),
        (mlp, {"activation": "tanh"}, 'init="looks_linear": activation: unknown name "tanh"'),
        (mlp, {"order": "linear act +"}, 'none elsewhere, but order="linear act +"\n  Use order="act linear +".'),
        (mlp, {"order": "act linear + act"}, 'none elsewhere, but order="act linear + act"'),
        (mlp, {"order": "act linear linear +"}, 'none elsewhere, but order="act linear linear +"'),
        (conv2d, {}, 'Use order="act conv +".'),
        (mlp, {"shortcut": "shortcut_gate"}, 'needs a linear skip, but shortcut="shortcut_gate"'),
    ],
)
def test_what_would_not_be_linear_is_refused(make, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(init="looks_linear", **options)


def test_mirrors_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r'mirror: unknown name "rows"\n  Choose from: outputs, both, inputs\.'):
        looks_linear_(torch.empty(4, 4), mirror="rows")

"""LayerScale, Fixup and NF-ResNets: what they promise at initialisation, measured."""

import json
import math
import re

import pytest
import torch
from torch import nn

from unbraid import trace
from unbraid.nn import (
    LayerScale,
    LearnedScale,
    Order,
    PlainNetwork,
    ResidualBlock,
    ScalarBias,
    WeightStandardised,
    build,
    conv1d,
    conv2d,
    mlp,
    transformer,
)
from unbraid.nn.init import activation_gain, fixup_, predicted_variances

F64 = torch.float64
TWO = "act conv act conv +"


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=draws(seed), dtype=F64)


def layers(module):
    return [m for m in module.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))]


# LayerScale


@pytest.mark.parametrize("dims", [0, 1, 2])
def test_layer_scale_is_a_diagonal_matrix(dims):
    scale = LayerScale(4, start=0.25, dims=dims).double()
    assert (scale.gains == 0.25).all()
    with torch.no_grad():
        scale.gains.copy_(normal(4))
    f = normal(2, 4, *[3] * dims)
    expected = torch.einsum("ij,bj...->bi...", scale.gains.diag(), f)
    torch.testing.assert_close(scale(f), expected, rtol=1e-14, atol=0)


def test_layer_scale_takes_the_last_axis_of_a_transformer():
    block = transformer(inputs=3, width=8, scale="layerscale").blocks[0]
    h = torch.randn(2, 5, 8)
    torch.testing.assert_close(block(h), h + 0.1 * block.branch(h))
    assert block.scale.gains.shape == (8,)


@pytest.mark.parametrize(("depth", "start"), [(18, 0.1), (24, 1e-5), (36, 1e-6)])
def test_layer_scale_starts_the_smaller_the_deeper(depth, start):
    """Touvron et al. (2021), section 2: by layers, of two blocks each."""
    with torch.device("meta"):
        networks = transformer(depth=depth, scale="layerscale"), mlp(depth=2 * depth, scale="layerscale")
    assert {block.scale.start for network in networks for block in network.blocks} == {start}


def test_deep_networks_with_layer_scale_keep_the_variance():
    network = mlp(depth=60, norm=None, scale="layerscale", generator=draws()).double()
    x = normal(512, 40)
    before = network.stem(x)
    torch.testing.assert_close(network.blocks(before), before, rtol=0, atol=1e-3 * before.abs().max().item())


# Fixup


@pytest.mark.parametrize(
    ("make", "order", "m"),
    [
        (mlp, "act linear +", 1),
        (mlp, "act linear act linear +", 2),
        (mlp, "act linear act linear act linear +", 3),
        (conv2d, "conv act conv + act", 2),
        (conv2d, "norm act conv norm act conv norm act conv +", 3),
    ],
)
def test_fixup_follows_its_three_rules(make, order, m):
    options = {"depth": 5} if make is mlp else {"layers": 3 * m * 2 + 2, "width": 8}
    network = make(order=order, norm=None, scale="fixup", generator=draws(), **options)
    twin = make(order=order, norm=None, bias=False, generator=draws(), **options)
    blocks = len(network.blocks)
    # Rule 1: the last layer of each branch and of the head are 0.
    assert all((layers(block.branch)[-1].weight == 0).all() for block in network.blocks)
    assert all((parameter == 0).all() for parameter in layers(network.head)[-1].parameters())
    # Rule 2: the others are He's, times L^(−1/(2m−2)); the stem's are He's.
    for ours, hes in zip(network.blocks, twin.blocks, strict=True):
        for one, other in list(zip(layers(ours.branch), layers(hes.branch), strict=True))[:-1]:
            torch.testing.assert_close(one.weight, other.weight * blocks ** (-1 / (2 * m - 2)))
    assert torch.equal(layers(network.stem)[0].weight, layers(twin.stem)[0].weight)
    # Rule 3: a multiplier 1 in every branch, a bias 0 before each layer and activation, and no others.
    multipliers = [part.alpha.item() for part in network.modules() if isinstance(part, LearnedScale)]
    assert multipliers == [1] * blocks
    acts = sum(isinstance(part, nn.ReLU) for part in network.modules())
    biases = [part.bias.item() for part in network.modules() if isinstance(part, ScalarBias)]
    assert biases == [0] * (acts + len(layers(network)))
    assert [layer.bias is None for layer in layers(network)] == [True] * (len(layers(network)) - 1) + [False]


def test_fixup_starts_as_its_skips_at_any_depth_and_can_leave():
    network = mlp(depth=200, order="act linear act linear +", scale="fixup", generator=draws()).double()
    x = normal(64, 40)
    h = network.stem(x)
    assert torch.equal(network.blocks(h), h)
    assert (network(x) == 0).all()
    nn.init.normal_(layers(network.head)[-1].weight, generator=draws())
    network(x).square().sum().backward()
    assert all(layers(block.branch)[-1].weight.grad.abs().max() > 0 for block in network.blocks)


def test_a_step_of_fixup_changes_the_branches_by_an_amount_that_does_not_grow_with_depth():
    """Zhang et al. (2019), section 3: Θ(η) by a step of size η; without the rescaling it grows with L."""

    def change(depth, scale):
        network = mlp(depth=depth, order="act linear act linear +", norm=None, scale=scale, generator=draws())
        network.double()
        nn.init.normal_(
            network.head[-1].weight if scale == "fixup" else network.head.weight, std=0.1, generator=draws()
        )
        x = normal(64, 40)
        before = network(x)
        before.square().mean().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= 1e-4 * parameter.grad
        return (network(x) - before).abs().mean().item()

    assert change(40, "fixup") / change(5, "fixup") < 2
    assert change(40, "zero") / change(5, "zero") > 4


def test_fixup_for_networks_made_by_hand_names_what_is_missing():
    network = mlp(depth=2)
    network.blocks[1] = ResidualBlock(nn.ReLU())
    with pytest.raises(ValueError, match="fixup_: a branch has no layer with weights"):
        fixup_(network)


# NF-ResNets


def test_the_gain_of_relu_in_closed_form_and_the_published_ones():
    """Constants of the authors' code, made by sampling; GELU there is its tanh approximation."""
    assert activation_gain("relu") == pytest.approx(math.sqrt(2 / (1 - 1 / math.pi)), rel=1e-6)
    published = {
        "elu": 1.2716004848480225,
        "gelu": 1.7015043497085571,
        "leaky_relu": 1.70590341091156,
        "relu": 1.7139588594436646,
        "silu": 1.7881293296813965,
        "tanh": 1.5939117670059204,
    }
    assert {name: activation_gain(name) for name in published} == pytest.approx(published, rel=2e-3)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 4), (2, 6)),
        (nn.Conv1d(3, 4, 3, padding=1), (2, 3, 5)),
        (nn.Conv2d(3, 4, 3, stride=2, padding=1), (2, 3, 5, 6)),
    ],
)
def test_standardised_weights_have_mean_0_and_variance_1_over_n(layer, shape):
    standard = WeightStandardised(layer).double()
    weight = standard.weight.flatten(1)
    torch.testing.assert_close(weight.mean(1), torch.zeros(4, dtype=F64), rtol=0, atol=1e-15)
    torch.testing.assert_close(weight.square().sum(1), torch.ones(4, dtype=F64), rtol=1e-5, atol=0)  # but for ε / σ²
    h = normal(*shape)
    bare = standard(h)
    # The layer's own scale and mean do not matter, and the gain multiplies.
    with torch.no_grad():
        standard.gain.fill_(3.0)
        layer.weight.copy_(5 * layer.weight + 2)
        bias = layer.bias.view(-1, *(1 for _ in shape[2:]))
    torch.testing.assert_close(standard(h) - bias, 3 * (bare - bias), rtol=1e-5, atol=1e-6)


def test_the_predicted_variance_grows_by_alpha_squared_and_starts_anew_at_transitions():
    assert list(predicted_variances([True, False, False, True, False], 0.5)) == [1.0, 1.25, 1.5, 1.75, 1.25]
    network = conv2d(layers=20, norm=None, order=TWO, scale="nf", shortcut="projection")
    betas = [block.branch[0].value for block in network.blocks]
    a = 0.04
    variances = [1, 1 + a, 1 + 2 * a, 1 + 3 * a, 1 + a, 1 + 2 * a, 1 + 3 * a, 1 + a, 1 + 2 * a]
    assert [b**-2 for b in betas] == pytest.approx(variances)
    assert [block.scale.value for block in network.blocks] == [0.2] * 9
    assert [block.skip[0].value for block in network.blocks if isinstance(block.skip, nn.Sequential)] == [
        betas[3],
        betas[6],
    ]


def measured(network, x, *, middle=False):
    """The mean over channels of each channel's variance, as each block receives the stream, and at the end."""
    h, variances = network.stem(x), []
    for block in [*network.blocks, nn.Identity()]:
        centre = h[..., h.shape[-1] // 4 : -(h.shape[-1] // 4)] if middle else h
        variances.append(centre.transpose(0, 1).flatten(1).var(1).mean().item())
        h = block(h)
    return torch.tensor(variances, dtype=F64)


def within_sampling_error(runs, predicted):
    """Whether every mean over the seeds is within five of its standard errors, taken from their spread."""
    runs = torch.stack(runs)
    errors = (runs.mean(0) - torch.tensor(predicted, dtype=F64)) / (runs.std(0) / len(runs) ** 0.5)
    return bool((errors.abs() < 5).all())


@torch.no_grad()
def variances(scale, seed, activation="relu"):
    network = mlp(
        inputs=64,
        width=64,
        depth=12,
        order="act linear act linear +",
        activation=activation,
        norm=None,
        scale=scale,
        generator=draws(seed),
    )
    return measured(network.double(), normal(1024, 64, seed=seed))


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_the_variance_of_the_stream_is_the_predicted_one(activation):
    runs = [variances("nf", seed, activation) for seed in range(12)]
    predicted = [1 + 0.04 * k for k in range(13)]
    assert within_sampling_error(runs, predicted)
    # Tight enough to tell: seeds agree within 2 %, and the stream's growth is 48 %.
    assert (torch.stack(runs).std(0) / 12**0.5).max() < 0.02
    assert not within_sampling_error(runs, [1.0] * 13)


def test_the_measurement_sees_a_network_without_the_scaling():
    """The same α by hand, without β, gains and standardised weights."""
    runs = [variances(0.2, seed) for seed in range(12)]
    assert not within_sampling_error(runs, [1 + 0.04 * k for k in range(13)])


@torch.no_grad()
def test_the_variance_of_a_convolutional_network_starts_anew_at_transitions():
    """Away from the ends of the sequence, where padding adds zeros."""
    runs = []
    for seed in range(12):
        network = conv1d(
            inputs=16, layers=10, stages=2, width=32, norm=None, order=TWO, scale="nf", shortcut="projection",
            generator=draws(seed),
        )  # fmt: skip
        runs.append(measured(network.double(), normal(8, 16, 256, seed=seed), middle=True))
    assert within_sampling_error(runs, [1, 1.04, 1.08, 1.04, 1.08])


# All three


NETWORKS = {
    "layerscale": lambda **o: conv2d(inputs=2, layers=8, width=4, scale="layerscale", stochastic_depth=0.2, **o),
    "fixup": lambda **o: conv2d(inputs=2, layers=8, width=4, norm=None, scale="fixup", **o),
    "nf": lambda **o: conv2d(inputs=2, layers=8, width=4, norm=None, order=TWO, scale="nf", shortcut="projection", **o),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_they_are_traced_with_all_their_blocks(kind):
    network = NETWORKS[kind]().double().eval()
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.copy_(0.5 * normal(*parameter.shape, seed=number))
    form = trace(network, (normal(2, 2, 8, 8),))
    assert [block.skip for block in form.blocks] == ["identity", "projection", "projection"]
    assert form.error < 1e-12
    assert not form.silent


@pytest.mark.parametrize("kind", NETWORKS)
def test_their_configs_survive_json_and_a_generator_is_all_they_draw_from(kind):
    before = torch.get_rng_state()
    network = NETWORKS[kind](generator=draws(3))
    assert torch.equal(torch.get_rng_state(), before)
    for original in (network, network.plain()):
        again = build(json.loads(json.dumps(original.config)), generator=draws(3))
        assert isinstance(again, PlainNetwork) == isinstance(original, PlainNetwork)
        assert again.config == original.config
        assert str(again) == str(original)
        assert all(map(torch.equal, again.state_dict().values(), original.state_dict().values()))


MODULES = {
    "scalar bias": (ScalarBias(), (2, 3)),
    "layer scale": (LayerScale(3, start=0.5, dims=1), (2, 3, 2)),
    "linear": (WeightStandardised(nn.Linear(3, 2)), (2, 3)),
    "sequence": (WeightStandardised(nn.Conv1d(2, 2, 3, padding=1)), (2, 2, 4)),
    "image": (WeightStandardised(nn.Conv2d(2, 2, 3, stride=2, padding=1, bias=False)), (2, 2, 3, 4)),
    "nf block": (mlp(inputs=3, width=4, depth=2, activation="silu", scale="nf").blocks[1], (2, 4)),
    "fixup block": (mlp(inputs=3, width=4, depth=2, activation="gelu", scale="fixup").blocks[1], (2, 4)),
}


@pytest.mark.parametrize("kind", MODULES)
def test_every_module_has_the_right_derivative(kind):
    module, shape = MODULES[kind]
    module.double()
    names, values = zip(*module.named_parameters(), strict=True)

    def forward(h, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (h,))

    assert torch.autograd.gradcheck(forward, (normal(*shape).requires_grad_(), *values))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (conv2d, {"scale": "fixup"}, 'conv2d: scale="fixup" replaces norms, but norm="batch"\n  Use norm=None.'),
        (
            conv2d,
            {"scale": "nf", "norm": None, "order": TWO},
            'which shortcut="pad" changes\n  Use shortcut="projection".',
        ),
        (mlp, {"scale": "fixup", "shortcut": "half"}, 'which shortcut="half" changes\n  Use shortcut="identity".'),
        (
            conv2d,
            {"scale": "nf", "norm": None, "shortcut": "projection"},
            f'a sum that the order "{Order.ORIGINAL}" changes\n  Use order="conv norm act conv norm +".',
        ),
        (mlp, {"scale": "fixup", "order": "linear act +"}, 'with scale="fixup" the order "linear act +" never trains'),
        (mlp, {"scale": "fixpu"}, 'Did you mean "fixup"?'),
    ],
)
def test_what_cannot_go_together_is_refused(make, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(**options)

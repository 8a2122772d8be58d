"""Networks and their plain twins: hand-made and from the constructors."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unbraid.nn import (
    GatedSkip,
    Order,
    PlainNetwork,
    Projection,
    ResidualBlock,
    ResidualNetwork,
    StochasticDepth,
    ZeroPad,
    build,
    conv1d,
    conv2d,
    mlp,
)

HE = (
    Order.ORIGINAL,
    Order.ADD_THEN_NORM,
    Order.ACT_BEFORE_ADD,
    Order.ACT_ONLY_PREACTIVATION,
    Order.PREACTIVATION,
)
HARMFUL = ("projection_everywhere", "half", "exclusive_gate", "shortcut_gate", "dropout")
ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "tanh")
NORMS = ("batch", "layer", "rms", "group", None)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@st.composite
def orders(draw, weight):
    other = st.sampled_from(("norm", "act", weight))
    before = draw(st.lists(other, max_size=3))
    before.insert(draw(st.integers(0, len(before))), weight)
    after = draw(st.lists(st.sampled_from(("norm", "act")), max_size=2))
    return " ".join((*before, "+", *after))


@st.composite
def recipes(draw):
    """A constructor, its options, the shape of an input, and a seed: a network of any kind, not yet made."""
    make, weight, shape = draw(
        st.sampled_from(((mlp, "linear", (3, 5)), (conv1d, "conv", (3, 2, 9)), (conv2d, "conv", (3, 2, 6, 5))))
    )
    order = draw(orders(weight))
    options = {
        "inputs": shape[1],
        "classes": 3,
        "width": draw(st.sampled_from((4, 8))),
        "order": order,
        "activation": draw(st.sampled_from(ACTIVATIONS)),
        "norm": draw(st.sampled_from(NORMS)),
        "scale": draw(st.sampled_from((1.0, 0.5, "1/sqrt(K)", "layerscale"))),
        "stochastic_depth": draw(st.sampled_from((0.0, 0.5))),
        "bias": draw(st.sampled_from((None, True, False))),
    }
    if make is mlp:
        options["depth"] = draw(st.integers(1, 4))
        options["shortcut"] = draw(st.sampled_from(("identity", *HARMFUL)))
    else:
        options["shortcut"] = draw(st.sampled_from(("pad", "projection", *HARMFUL)))
        options["stages"] = draw(st.integers(1, 2))
        options["layers"] = options["stages"] * draw(st.integers(1, 2)) * order.split("+")[0].count(weight) + 2
    return make, options, shape, draw(st.integers(0, 2**32))


def made(recipe):
    """The network of a recipe, and an input for it."""
    make, options, shape, seed = recipe
    draws = torch.Generator().manual_seed(seed)
    network = make(**options, generator=draws).double().eval()
    return network, torch.randn(shape, dtype=torch.float64, generator=draws)


@settings(max_examples=60, deadline=None)
@given(recipes())
def test_a_network_is_its_equation_and_its_twin_is_it_minus_the_skips(recipe):
    """Equations 11.4 and 11.1, block by block."""
    network, x = made(recipe)
    twin = network.plain()
    h = plain = network.stem(x)
    for block in network.blocks:
        f, p = block.scale(block.branch(h)), block.scale(block.branch(plain))
        h, plain = block.after(block.skip(h) + f), block.after(p)
    torch.testing.assert_close(network(x), network.head(h), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(twin(x), network.head(plain), rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(recipes())
def test_the_twin_holds_copies_of_the_same_weights_without_the_skips(recipe):
    network, _ = made(recipe)
    twin = network.plain()
    kept = {
        name.replace("blocks.", "layers.", 1): value
        for name, value in network.state_dict().items()
        if ".skip." not in name
    }
    assert list(kept) == list(twin.state_dict())
    for name, value in twin.state_dict().items():
        assert torch.equal(value, kept[name])
        assert value.data_ptr() != kept[name].data_ptr() or not value.numel()
    gone = (StochasticDepth, Projection, ZeroPad, ResidualBlock, GatedSkip, nn.Dropout)
    assert not any(isinstance(m, gone) for m in twin.modules())


@settings(max_examples=30, deadline=None)
@given(recipes())
def test_a_config_survives_json_and_builds_the_same_architecture(recipe):
    network, _ = made(recipe)
    for original in (network, network.plain()):
        config = json.loads(json.dumps(original.config))
        assert config == original.config
        again = build(config, generator=torch.Generator().manual_seed(0)).double()
        assert type(again) is type(original)
        assert again.config == original.config
        assert str(again) == str(original)
        again.load_state_dict(original.state_dict())


def test_the_twin_does_not_follow_its_original():
    network = mlp(depth=2)
    twin = network.plain()
    before = copy.deepcopy(twin.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert all(map(torch.equal, twin.state_dict().values(), before.values()))


def test_a_twin_keeps_shared_weights_shared_and_other_steps_of_the_trunk():
    block = ResidualBlock(nn.Linear(4, 4))
    network = ResidualNetwork(nn.Identity(), [block, nn.Tanh(), block], nn.Linear(4, 2))
    twin = network.plain()
    assert isinstance(twin, PlainNetwork)
    assert twin.config is None
    assert parameters(twin) == parameters(network) == 4 * 4 + 4 + 4 * 2 + 2
    x = torch.randn(3, 4)
    expected = network.head(block.branch(torch.tanh(block.branch(x))))
    torch.testing.assert_close(twin(x), expected)


def test_a_block_inside_a_branch_keeps_its_skip():
    inner = ResidualBlock(nn.Linear(4, 4), scale=StochasticDepth(0.5))
    outer = ResidualBlock(nn.Sequential(inner, nn.Tanh()), scale=StochasticDepth(0.5))
    twin = ResidualNetwork(nn.Identity(), [outer], nn.Identity()).plain()
    assert [name for name, m in twin.named_modules() if isinstance(m, ResidualBlock)] == ["layers.0.branch.0"]
    assert [m.probability for m in twin.modules() if isinstance(m, StochasticDepth)] == [0.5]
    assert isinstance(outer.scale, StochasticDepth)  # the original keeps its own


def test_the_network_of_the_depth_benchmark():
    """Linear stem, blocks `act linear +`, linear head: the parameters counted by hand."""
    network = mlp()
    assert parameters(network) == (40 * 100 + 100) + 10 * (100 * 100 + 100) + (100 * 10 + 10)
    assert isinstance(network.stem, nn.Linear)
    assert isinstance(network.head, nn.Linear)
    assert [type(m) for m in network.blocks[0].branch] == [nn.ReLU, nn.Linear]
    assert network(torch.randn(3, 40)).shape == (3, 10)


# Millions from He et al. (2015), table 6; exact counts from akamaster/pytorch_resnet_cifar10 (option A).
PUBLISHED = {
    20: (0.27, 269_722),
    32: (0.46, 464_154),
    44: (0.66, 658_586),
    56: (0.85, 853_018),
    110: (1.7, 1_727_962),
}


@pytest.mark.parametrize("layers", PUBLISHED)
def test_cifar_networks_have_the_published_number_of_parameters(layers):
    with torch.device("meta"):
        network = conv2d(layers=layers)
    millions, exact = PUBLISHED[layers]
    assert parameters(network) == exact
    assert round(exact / 1e6, 2 if millions < 1 else 1) == millions
    weighted = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(weighted) == layers
    assert parameters(network.plain()) == exact  # zero padding has none


def test_projections_add_their_own_parameters_alone():
    """Option B adds two 1x1 convolutions with batch norm: 16·32 + 2·32 and 32·64 + 2·64."""
    assert parameters(conv2d(shortcut="projection")) - parameters(conv2d()) == 512 + 64 + 2048 + 128


def test_stages_halve_the_positions_and_double_the_channels():
    network = conv2d(layers=20)
    h, shapes = network.stem(torch.randn(2, 3, 32, 32)), []
    for block in network.blocks:
        h = block(h)
        shapes.append(tuple(h.shape[1:]))
    assert shapes == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3
    assert [type(b.skip).__name__ for b in network.blocks] == (
        ["Identity"] * 3 + ["ZeroPad"] + ["Identity"] * 2 + ["ZeroPad"] + ["Identity"] * 2
    )


@pytest.mark.parametrize("order", HE, ids=str)
@pytest.mark.parametrize("make", [conv1d, conv2d])
def test_small_inputs_and_all_orders_of_he(make, order):
    shape = {conv1d: (3, 1, 40), conv2d: (3, 1, 8, 8)}[make]
    network = make(inputs=1, layers=8, order=order)
    assert network(torch.randn(shape)).shape == (3, 10)


def test_what_stands_at_the_ends_depends_on_what_the_blocks_begin_with():
    def kinds(module):
        return [type(m).__name__ for m in (module if isinstance(module, nn.Sequential) else [module])]

    pool = ["AdaptiveAvgPool2d", "Flatten", "Linear"]
    ends = {order: conv2d(layers=8, order=order) for order in HE}
    assert [kinds(ends[order].stem) for order in HE] == [
        ["FirstConv2d", "BatchNorm2d", "ReLU"],
        ["FirstConv2d", "BatchNorm2d", "ReLU"],
        ["FirstConv2d", "BatchNorm2d", "ReLU"],
        ["FirstConv2d", "BatchNorm2d"],
        ["FirstConv2d"],
    ]
    assert [kinds(ends[order].head) for order in HE] == [pool] * 4 + [["BatchNorm2d", "ReLU", *pool]]
    assert kinds(mlp(order="linear act +").stem) == ["Linear", "ReLU"]
    assert kinds(mlp(order="norm act linear +").head) == ["BatchNorm1d", "ReLU", "Linear"]


def biases(network):
    return {m.bias is not None for b in network.blocks for m in b.modules() if isinstance(m, (nn.Linear, nn.Conv2d))}


def test_norms_with_a_shift_take_the_place_of_biases():
    assert [biases(conv2d(layers=8, norm=norm)) for norm in NORMS] == [{False}] * 2 + [
        {True},
        {False},
        {True},
    ]
    assert biases(mlp(order="act linear +", norm="batch")) == {True}


@pytest.mark.parametrize("width", [4, 6, 10, 16, 64, 100])
def test_groups_hold_four_channels_or_more(width):
    norm = mlp(width=width, order="norm linear +", norm="group", depth=1).blocks[0].branch[0].num_groups
    assert norm == {4: 1, 6: 1, 10: 2, 16: 4, 64: 8, 100: 5}[width]


def test_channel_rms_norm_against_its_formula():
    (norm,) = conv1d(order="norm conv +", norm="rms", layers=5, width=4).blocks[0].branch[:1]
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, 5.0))
    h = torch.randn(3, 4, 7)
    expected = h / (h.square().mean((1, 2), keepdim=True) + 1e-5).sqrt() * torch.arange(1.0, 5.0)[:, None]
    torch.testing.assert_close(norm(h), expected)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            conv2d,
            {"layers": 21},
            r"layers=21 .* 6n \+ 2: .*3 stages .* 2 each\n  Nearest: 20 or 26\.",
        ),
        (conv1d, {"layers": 3}, r"conv1d: layers=3 does not fit 6n \+ 2: .*\n  Nearest: 8\."),
        (
            conv2d,
            {"layers": 20, "order": "norm act conv +", "stages": 4},
            r"4n \+ 2.*\n  Nearest: 18 or 22\.",
        ),
        (mlp, {"depth": 0}, "depth must be 1 or more, but is 0"),
        (conv2d, {"width": -1}, "width must be 1 or more, but is -1"),
        (mlp, {"activation": "rleu"}, r'activation: unknown name "rleu"\n.*relu, .*Did you mean "relu"\?'),
        (mlp, {"norm": "bach"}, r'norm: unknown name "bach"'),
        (conv2d, {"shortcut": "padding"}, r'shortcut: unknown name "padding"\n.*pad, projection'),
        (
            conv2d,
            {"order": "linear norm + act"},
            r'conv2d: .*"linear".*\n  It takes conv, .*"conv norm \+ act"',
        ),
        (mlp, {"init": "hee"}, 'init: unknown name "hee"'),
        (mlp, {"stochastic_depth": 1.5}, r"must be in \[0, 1\)"),
    ],
)
def test_options_that_do_not_exist_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"depth": 3}, r'build: the config has no "constructor"; it has depth'),
        (
            {"constructor": "mpl"},
            r'constructor: unknown name "mpl"\n  Choose from: mlp, conv1d, conv2d, transformer\. .*"mlp"',
        ),
        (
            {"constructor": "mlp", "dept": 3},
            r'build: mlp has no argument "dept"\n  It takes inputs, .*"depth"\?',
        ),
        ({"constructor": "mlp", "layers": 20}, r'build: mlp has no argument "layers"'),
    ],
)
def test_a_config_that_says_nothing_known_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        build(config)


def test_build_keeps_defaults_and_does_not_change_the_config_given():
    config = {"constructor": "mlp", "plain": True}
    network = build(config)
    assert isinstance(network, PlainNetwork)
    assert config == {"constructor": "mlp", "plain": True}
    assert network.config == mlp().plain().config


def test_the_scale_does_not_change_the_weights():
    """So the plain network of scale 1 can be set against the residual one of any scale."""
    one, other = (mlp(scale=scale, generator=torch.Generator().manual_seed(0)) for scale in (1.0, "1/sqrt(K)"))
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
    assert list(one.state_dict()) == list(other.state_dict())

"""The shortcuts that He et al. (2016, section 3) found harmful, each against its formula."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d as convolve

from unbraid import trace
from unbraid.nn import Gate, GatedBranch, GatedSkip, Projection, ResidualBlock, conv2d, mlp

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def made(shortcut, **options):
    """A network whose every parameter is drawn."""
    network = conv2d(
        **{"inputs": 2, "layers": 14, "width": 4, "order": "norm act conv norm act conv +", **options},
        shortcut=shortcut,
    )
    network.double().eval()
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.copy_(0.4 * normal(*parameter.shape, seed=number))
    return network


def sigmoid(z):
    return 1 / (1 + torch.exp(-z))


def padded(h):
    """Option A, by hand: every second position, zeros for as many channels more."""
    return torch.cat([h[:, :, ::2, ::2], torch.zeros_like(h[:, :, ::2, ::2])], 1)


def gate_of(block, h):
    gate = block.skip.gate
    stride = gate.linear.stride[0]
    return sigmoid(convolve(h, gate.linear.weight, stride=stride) + gate.shift[:, None, None])


BY_HAND = {
    "half": lambda block, h, s, f: 0.5 * s + f,
    "dropout": lambda block, h, s, f: s + f,  # in eval mode
    "shortcut_gate": lambda block, h, s, f: (1 - gate_of(block, h)) * s + f,
    "exclusive_gate": lambda block, h, s, f: (1 - gate_of(block, h)) * s + gate_of(block, h) * f,
    "projection_everywhere": lambda block, h, s, f: (
        convolve(h, block.skip.linear.weight, stride=block.skip.linear.stride) + f
    ),
}


@pytest.mark.parametrize("shortcut", BY_HAND)
@pytest.mark.parametrize("place", [1, 2])  # in the first stage, and where the size changes
def test_each_shortcut_is_its_formula(shortcut, place):
    block = made(shortcut).blocks[place]
    h = normal(3, 4, 6, 6)
    branch = block.branch.branch if shortcut == "exclusive_gate" else block.branch
    expected = BY_HAND[shortcut](block, h, padded(h) if place == 2 else h, branch(h))
    torch.testing.assert_close(block(h), expected, rtol=1e-12, atol=1e-12)


def test_constant_scaling_of_both_sides_is_figure_2b():
    block = mlp(inputs=3, width=5, depth=1, shortcut="half", scale=0.5).double().blocks[0]
    h = normal(4, 5)
    torch.testing.assert_close(block(h), 0.5 * h + 0.5 * block.branch(h), rtol=1e-12, atol=1e-12)


def test_a_gate_starts_almost_closed():
    """b = −6, where He et al. (2016) got the least error: g = 0.0025 where W h = 0."""
    gate = Gate(3, 3, dims=0)
    assert gate(torch.zeros(1, 3)).tolist() == [pytest.approx([1 / (1 + 2.718281828459045**6)] * 3)] * 1
    block = conv2d(layers=8, shortcut="exclusive_gate").blocks[0]
    assert (block.skip.gate.shift == -6).all()
    assert block.skip.gate is block.branch.gate


def test_dropout_on_the_skip_drops_half_of_it_in_training_alone():
    block = mlp(inputs=3, width=4, depth=1, shortcut="dropout", scale="zero").blocks[0]
    h = torch.ones(10_000, 4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        out = block.train()(h)
    assert sorted(set(out.flatten().tolist())) == [0, 2]
    assert (out == 0).double().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / 200)
    assert torch.equal(block.eval()(h), h)


@pytest.mark.parametrize("shortcut", BY_HAND)
def test_the_plain_twin_has_none_of_them(shortcut):
    network = made(shortcut)
    twin = network.plain()
    h = normal(2, 4, 6, 6)
    torch.testing.assert_close(twin.layers[1](h), network.blocks[1].branch(h))
    skips = (GatedSkip, nn.Dropout, Projection)
    assert not any(isinstance(module, skips) for module in twin.modules())


@pytest.mark.parametrize(
    ("shortcut", "skips"),
    [
        ("half", ["projection"] * 6),
        ("projection_everywhere", ["projection"] * 6),
        ("dropout", ["identity", "identity", "projection", "identity", "projection", "identity"]),
    ],
)
def test_those_that_are_residual_are_traced(shortcut, skips):
    form = trace(made(shortcut), (normal(2, 2, 8, 8),))
    assert [block.skip for block in form.blocks] == skips
    assert form.error < 1e-12
    assert not form.silent


@pytest.mark.parametrize("shortcut", ["exclusive_gate", "shortcut_gate"])
def test_gates_are_seen_as_what_they_are(shortcut):
    """Skips that mix by data-dependent weights are gates."""
    form = trace(made(shortcut), (normal(2, 2, 8, 8),))
    assert [block.skip for block in form.blocks] == ["gate"] * 6
    assert form.error < 1e-12


GATE = Gate(3, 3, dims=0, start=0.0)
MODULES = {
    "features": (GATE, (2, 3)),
    "image": (Gate(2, 4, 2, start=-1.0), (2, 2, 3, 4)),
    "exclusive": (ResidualBlock(GatedBranch(GATE, nn.Linear(3, 3)), GatedSkip(GATE, nn.Identity())), (2, 3)),
    "half": (mlp(inputs=3, width=3, depth=1, shortcut="half").blocks[0], (2, 3)),
    "convolution": (conv2d(layers=8, width=2, shortcut="projection_everywhere").blocks[0].eval(), (2, 2, 3, 3)),
}


@pytest.mark.parametrize("kind", MODULES)
def test_every_module_has_the_right_derivative(kind):
    module, shape = MODULES[kind]
    module.double()
    names, values = zip(*module.named_parameters(), strict=True)

    def forward(h, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (h,))

    # Away from the kinks of ReLU, where a difference quotient is no derivative.
    assert torch.autograd.gradcheck(forward, ((normal(*shape, seed=3) + 0.1).requires_grad_(), *values))


@pytest.mark.parametrize(
    ("make", "shortcut", "message"),
    [
        (mlp, "pad", r'shortcut: unknown name "pad"\n  Choose from: identity, projection_everywhere, half, exclusive'),
        (conv2d, "identity", r'shortcut: unknown name "identity"\n  Choose from: pad, projection, projection_every'),
        (conv2d, "exclusive", r'Did you mean "exclusive_gate"\?'),
    ],
)
def test_shortcuts_that_do_not_exist_are_refused(make, shortcut, message):
    with pytest.raises(ValueError, match=message):
        make(shortcut=shortcut)

"""Scales of the branch, and blocks that start as their skip."""

import math

import pytest
import torch
from torch import nn

from unbraid.nn import FixedScale, LearnedScale, ResidualBlock, StochasticDepth, conv2d, mlp


def test_stochastic_depth_drops_whole_examples_and_keeps_the_expectation():
    drop = StochasticDepth(0.25)
    f = torch.ones(20_000, 3, 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kept = drop(f)
    rows = kept.flatten(1)
    assert (rows == rows[:, :1]).all()
    assert sorted(set(rows[:, 0].tolist())) == pytest.approx([0, 4 / 3])
    # The fraction dropped is binomial: five standard deviations are 5 √(p(1−p)/n) = 0.0153.
    assert (rows[:, 0] == 0).double().mean().item() == pytest.approx(0.25, abs=0.0153)
    assert kept.mean().item() == pytest.approx(1, abs=0.0153 * 4 / 3)


def test_stochastic_depth_is_the_identity_in_eval_mode():
    f = torch.randn(4, 3)
    assert StochasticDepth(0.9).eval()(f) is f


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_stochastic_depth_refuses_what_is_no_probability(probability):
    with pytest.raises(ValueError, match=rf"must be in \[0, 1\), but is {probability}"):
        StochasticDepth(probability)


def test_the_probability_grows_linearly_with_depth():
    """Huang et al. (2016): p_k = (k/K) p_K."""
    network = mlp(depth=4, stochastic_depth=0.2)
    drops = [m.probability for m in network.modules() if isinstance(m, StochasticDepth)]
    assert drops == pytest.approx([0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize(
    ("scale", "value"), [(0.3, 0.3), ("1/sqrt(2)", 1 / math.sqrt(2)), ("1/sqrt(K)", 1 / math.sqrt(5))]
)
def test_constant_scales(scale, value):
    network = mlp(depth=5, scale=scale)
    assert all(isinstance(block.scale, FixedScale) for block in network.blocks)
    h = torch.randn(2, 100)
    block = network.blocks[3]
    torch.testing.assert_close(block(h), h + value * block.branch(h))


def test_k_counts_the_blocks_of_all_stages():
    assert conv2d(layers=20, scale="1/sqrt(K)").blocks[8].scale.value == pytest.approx(1 / 3)


def test_scale_and_stochastic_depth_combine():
    block = mlp(depth=1, scale=0.5, stochastic_depth=0.9).blocks[0]
    h = torch.randn(2, 100)
    assert not torch.equal(block.train()(h), block.eval()(h))
    torch.testing.assert_close(block.eval()(h), h + 0.5 * block.branch(h))


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match=r'scale: unknown name "1/sqrt\(k\)"\n.*Did you mean "1/sqrt\(K\)"'):
        mlp(scale="1/sqrt(k)")


STARTS = [
    pytest.param(make, options, id=f"{make.__name__}-{options['order']}-{options.get('norm', 'batch')}")
    for make, options in [
        (mlp, {"order": "act linear +"}),
        (mlp, {"order": "norm act linear norm act linear +", "norm": "rms"}),
        (mlp, {"order": "linear norm act linear norm +", "norm": "layer"}),
        (mlp, {"order": "linear act +", "activation": "gelu"}),
        (conv2d, {"order": "norm act conv norm act conv +", "layers": 8}),
        (conv2d, {"order": "act conv norm act conv norm +", "layers": 8}),
        (conv2d, {"order": "conv norm act conv norm act +", "layers": 8, "activation": "silu"}),
        (conv2d, {"order": "conv norm act conv +", "layers": 8, "norm": None}),
    ]
]


@pytest.mark.parametrize("scale", ["learned", "zero"])
@pytest.mark.parametrize(("make", "options"), STARTS)
def test_a_block_starts_as_its_skip_and_can_leave(make, options, scale):
    """SkipInit, ReZero, zero-initialised last layer: the skip at first, and a gradient that moves it."""
    network = make(scale=scale, **options)
    block = network.blocks[-1]
    width = network.head[-1].in_features if isinstance(network.head, nn.Sequential) else network.head.in_features
    h = torch.randn(4, width // 2, 6, 6) if make is conv2d else torch.randn(4, width)
    out = block(h)
    assert torch.equal(out, block.skip(h))
    assert make is conv2d or torch.equal(out, h)
    out.square().sum().backward()
    assert any(
        p.grad is not None and p.grad.abs().max() > 0 for p in [*block.branch.parameters(), *block.scale.parameters()]
    )
    # By default blocks start otherwise.
    other = make(**options).blocks[-1]
    assert not torch.equal(other(h), other.skip(h))


def test_a_branch_that_could_never_leave_zero_is_refused():
    with pytest.raises(
        ValueError, match=r'mlp: with scale="zero" the order "linear act \+" never trains: .*relu is 0\n'
    ):
        mlp(order="linear act +", scale="zero")


def test_a_learned_scale_is_one_number():
    scale = LearnedScale()
    assert [p.numel() for p in scale.parameters()] == [1]
    block = ResidualBlock(nn.Linear(3, 3), scale=scale)
    block(torch.randn(2, 3)).sum().backward()
    assert scale.alpha.grad is not None
    assert scale.alpha.grad != 0

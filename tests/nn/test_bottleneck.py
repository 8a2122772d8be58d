"""Bottleneck blocks: published sizes, problem 11.8 of Prince (2023), and where they narrow."""

import pytest
import torch
from torch import nn

from unbraid import trace
from unbraid.nn import Order, conv1d, conv2d

THREE = Order("norm act conv +").repeat(3)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


# Millions from He et al. (2016), table 4, where 1001 layers are said to have 10.2; exact counts from osmr/imgclsmob.
PUBLISHED = {164: (1.7, 1_703_258), 272: (None, 2_816_090), 542: (None, 5_598_170), 1001: (10.3, 10_327_706)}


@pytest.mark.parametrize("layers", PUBLISHED)
def test_cifar_networks_of_9n_plus_2_layers_have_the_published_number_of_parameters(layers):
    with torch.device("meta"):
        network = conv2d(layers=layers, order=THREE, bottleneck=4, shortcut="projection")
    millions, exact = PUBLISHED[layers]
    assert parameters(network) == exact
    assert millions is None or round(exact / 1e6, 1) == millions
    branches = [m for b in network.blocks for m in b.branch.modules() if isinstance(m, nn.Conv2d)]
    assert len(branches) + 2 == layers
    # Zero padding leaves out the three projections.
    with torch.device("meta"):
        padded = conv2d(layers=layers, order=THREE, bottleneck=4)
    assert exact - parameters(padded) == 16 * 64 + 64 * 128 + 128 * 256


def test_the_counts_of_problem_11_8():
    """512 channels, biases and norms included: 512·512·9 + 512 + 2·512, and three smaller layers."""
    wide = conv2d(width=512, stages=1, layers=3, order="norm act conv +", bias=True)
    narrow = conv2d(width=128, stages=1, layers=8, order=THREE, bottleneck=4, bias=True)
    assert parameters(wide.blocks[0].branch) == 2_360_832
    assert parameters(narrow.blocks[1].branch) == 280_832
    h = torch.randn(1, 512, 3, 3)
    assert wide.blocks[0](h).shape == narrow.blocks[1](h).shape == h.shape


@pytest.mark.parametrize(
    ("make", "kind", "shape"), [(conv1d, nn.Conv1d, (2, 3, 16)), (conv2d, nn.Conv2d, (2, 3, 8, 8))]
)
def test_a_bottleneck_narrows_by_1x1_and_steps_first(make, kind, shape):
    network = make(inputs=3, width=4, layers=11, order=THREE, bottleneck=2)
    first, second, _ = ([m for m in b.branch.modules() if isinstance(m, kind)] for b in network.blocks)
    dims = len(shape) - 2
    assert [tuple(m.weight.shape[:2]) for m in first] == [(4, 4), (4, 4), (8, 4)]
    assert [tuple(m.weight.shape[:2]) for m in second] == [(8, 8), (8, 8), (16, 8)]
    assert [m.kernel_size[0] for m in second] == [1, 3, 1]
    assert [m.stride for m in second] == [(2,) * dims, (1,) * dims, (1,) * dims]
    assert network(torch.randn(shape)).shape == (2, 10)


@pytest.mark.parametrize("order", [THREE, Order("conv norm act conv norm act conv norm + act")])
def test_bottlenecks_are_traced(order):
    network = conv2d(inputs=2, width=2, layers=20, order=order, bottleneck=4, shortcut="projection").double().eval()
    form = trace(network, (torch.randn(2, 2, 8, 8, dtype=torch.float64),))
    assert [block.skip for block in form.blocks] == ["projection", "identity"] * 3
    assert form.error < 1e-12


def test_a_bottleneck_needs_three_convolutions():
    with pytest.raises(ValueError, match=r'has 3 convolutions or more; "norm act conv \+" has 1\n  Use order=Order'):
        conv2d(order="norm act conv +", bottleneck=4, layers=8)
    with pytest.raises(ValueError, match="bottleneck must be 1 or more, but is 0"):
        conv2d(bottleneck=0)
    with pytest.raises(ValueError, match=r"does not fit 9n \+ 2: .*\n  Nearest: 11 or 20\."):
        conv2d(order=THREE, bottleneck=4, layers=18)

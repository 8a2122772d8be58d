"""torch.export takes the networks with a free batch size: the strict comparison of shapes fixes none."""

import pytest
import torch

from unbraid.errors import ShapeError
from unbraid.nn import Order, ResidualBlock, ResidualNetwork, conv1d, conv2d, mlp, transformer

CASES = {
    "mlp": (lambda: mlp(depth=3, order="norm act linear +", scale="1/sqrt(K)", stochastic_depth=0.3), (40,)),
    "conv1d": (lambda: conv1d(layers=8, norm="rms", shortcut="projection"), (1, 40)),
    "conv2d": (lambda: conv2d(inputs=1, layers=8), (1, 8, 8)),
    "bottleneck": (
        lambda: conv2d(inputs=1, layers=11, order=Order("norm act conv +").repeat(3), bottleneck=2),
        (1, 8, 8),
    ),
    "gates": (lambda: conv2d(inputs=1, layers=8, shortcut="exclusive_gate"), (1, 8, 8)),
    "norm-free": (lambda: mlp(depth=3, scale="nf"), (40,)),
    "transformer": (lambda: transformer(inputs=4, depth=2, causal=True), (10, 4)),
    "plain": (lambda: mlp(depth=3).plain(), (40,)),
}


def export(network, x):
    return torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False)


@pytest.mark.parametrize("kind", CASES)
def test_a_network_exported_at_batch_3_runs_at_batch_5(kind):
    make, shape = CASES[kind]
    network = make().eval()
    exported = export(network, torch.randn(3, *shape)).module()
    x = torch.randn(5, *shape)
    torch.testing.assert_close(exported(x), network(x))


def test_a_mismatch_is_still_named_while_exporting():
    network = ResidualNetwork(torch.nn.Identity(), [ResidualBlock(torch.nn.Linear(4, 1))], torch.nn.Identity())
    with pytest.raises(ShapeError, match=r'^block 0 \("blocks\.0"\): '):
        export(network, torch.randn(3, 4))

"""Signal propagation against hooks and plain statistics."""

import pytest
import torch
from torch import nn

import unbraid.nn as unn
from networks import F64, Chain, Residual, error, lively, mlp, normal
from unbraid import chain, trace
from unbraid.errors import DataError
from unbraid.gradients import signal
from unbraid.graph import channel_dimension


def split(x, labels, *sizes):
    return list(zip(x.split(sizes), labels.split(sizes), strict=True))


@pytest.fixture(scope="module")
def setting():
    network = lively(Chain(*(Residual(mlp(6)) for _ in range(4)), nn.Linear(6, 3)))
    x = normal(20, 6)
    return network, trace(network, x), x, torch.arange(20) % 3


def by_hand(network, x):
    """Skip, branch and sum of every block."""
    h, found = x, []
    with torch.no_grad():
        for block in network.blocks[:4]:
            f = block.branch(h)
            found.append((h, f, h + f))
            h = h + f
    return found


@pytest.mark.parametrize("sizes", [(20,), (7, 13), (1, 9, 10)])
def test_moments_are_those_of_the_data_however_it_is_batched(setting, sizes):
    network, form, x, labels = setting
    found = signal(form, split(x, labels, *sizes))
    for k, streams in enumerate(by_hand(network, x)):
        for moments, stream in zip((found.skip, found.branch, found.sum), streams, strict=True):
            assert moments.variance[k] == pytest.approx(float(stream.var(0, unbiased=False).mean()), rel=1e-10)
            assert moments.squared_mean[k] == pytest.approx(float(stream.mean(0).square().mean()), rel=1e-10)
        skip, branch, _ = (stream - stream.mean(0) for stream in streams)
        correlation = (skip * branch).sum() / (skip.square().sum() * branch.square().sum()).sqrt()
        assert found.correlation[k] == pytest.approx(float(correlation), rel=1e-9)
    assert found.source.variance[0] == pytest.approx(float(x.var(0, unbiased=False).mean()), rel=1e-12)
    assert found.examples == 20
    assert found.not_finite is None


def test_gradients_are_autograd_s_at_every_sum(setting):
    network, form, x, labels = setting
    h, sums = x, []
    for block in network.blocks[:4]:
        h = block(h)
        sums.append(h)
    losses = nn.functional.cross_entropy(network.blocks[4](h), labels, reduction="sum")
    wanted = [float(g.norm(dim=1).mean()) for g in torch.autograd.grad(losses, sums)]
    found = signal(form, split(x, labels, 8, 12))
    assert found.gradient.tolist() == pytest.approx(wanted, rel=1e-10)
    assert signal(form, split(x, labels, 20), loss=None).gradient.isnan().all()


def test_images_have_their_channels_second_and_positions_are_pooled():
    network = unn.conv2d(layers=8, inputs=1).double().eval()
    x = normal(4, 1, 8, 8)
    form = trace(network, x)
    assert {channel_dimension(form.graph, block.index) for block in form.blocks} == {1}
    found = signal(form, [(x, torch.zeros(4, dtype=torch.long))])
    stream = form.values((x,), None, (form.adds[0].output,))[form.adds[0].output]
    assert found.sum.variance[0] == pytest.approx(float(stream.var((0, 2, 3), unbiased=False).mean()), rel=1e-10)


def test_sequences_have_their_channels_last():
    network = lively(Chain(*(Residual(nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6))) for _ in range(2))))
    x = normal(3, 5, 6)
    form = trace(network, x)
    found = signal(form, [(x, None)], loss=None)
    assert channel_dimension(form.graph, 0) == 2
    stream = network.blocks[0](x)
    assert found.sum.variance[0] == pytest.approx(float(stream.detach().var((0, 1), unbiased=False).mean()), rel=1e-10)


def test_a_plain_network_has_no_skip(setting):
    network = lively(Chain(*(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3))))
    x = normal(9, 4)
    found = signal(chain(network, x, layers=["blocks"]), [(x, torch.zeros(9, dtype=torch.long))])
    assert found.skip.variance.isnan().all()
    assert found.correlation.isnan().all()
    assert found.sum.variance.equal(found.branch.variance)
    assert (found.gradient > 0).all()


@pytest.mark.parametrize("block", [0, 2, 3])
def test_infinity_is_traced_to_the_block_that_makes_it(setting, block):
    network = lively(Chain(*(Residual(mlp(6)) for _ in range(4)), nn.Linear(6, 3)))
    x = normal(5, 6)
    form = trace(network, x)
    with torch.no_grad():
        network.blocks[block].branch[2].bias.fill_(float("inf"))
    found = signal(form, [(x, torch.zeros(5, dtype=torch.long))])
    assert (found.not_finite.where, found.not_finite.way) == (f"block {block} ('blocks.{block}')", "forward")


def test_nan_in_the_backward_pass_alone_is_traced():
    """√ of zero: 0 forward, nan backward (0 · ∞)."""

    class Root(nn.Module):
        def forward(self, h):
            return (0 * h.square()).sqrt()

    network = Chain(Residual(mlp(4)), Residual(Root()), Residual(mlp(4)), nn.Linear(4, 2))
    network = lively(network)
    x = normal(3, 4)
    found = signal(trace(network, x), [(x, torch.zeros(3, dtype=torch.long))])
    assert (found.not_finite.where, found.not_finite.way) == ("block 0 ('blocks.0')", "backward")


def test_what_does_not_fit_is_said(setting):
    _, form, x, labels = setting
    with pytest.raises(DataError, match="there was none"):
        signal(form, [])
    with pytest.raises(
        ValueError, match=r"the cross-entropy takes scores .*\[20, 3\] and the labels are \[20, 1\]\. Give loss="
    ):
        signal(form, [(x, labels[:, None])])


def test_a_signal_speaks(setting):
    _, form, x, labels = setting
    found = signal(form, [(x, labels)])
    assert found.table().row_count == 4
    assert set(found.to_dict()) == {
        "names", "source", "sum", "skip", "branch", "correlation", "gradient", "examples", "not_finite"
    }  # fmt: skip
    assert error(found.ratio**2 * found.skip.variance, found.branch.variance) < 1e-12
    assert len(found.plot().axes) == 2
    assert F64 is found.sum.variance.dtype

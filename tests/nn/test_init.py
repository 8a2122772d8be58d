"""First weights: their variance, and where their randomness comes from."""

import math

import pytest
import torch
from torch import nn

from unbraid.nn import conv1d, conv2d, mlp, transformer
from unbraid.nn.init import glorot_, he_, initialise_, zero_last_

NETWORKS = {
    "mlp": lambda **options: mlp(depth=3, order="norm act linear +", scale="learned", **options),
    "conv1d": lambda **options: conv1d(layers=8, shortcut="projection", norm="rms", **options),
    "conv2d": lambda **options: conv2d(layers=8, **options),
}


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
@pytest.mark.parametrize(("initialise", "variance"), [(he_, 2 / (50 * 9)), (glorot_, 2 / (50 * 9 + 200 * 9))])
def test_weights_have_the_published_variance(initialise, variance, distribution):
    weight = torch.empty(200, 50, 3, 3)
    result = initialise(weight, distribution=distribution, generator=torch.Generator().manual_seed(0))
    assert result is weight
    # 90,000 draws: the variance is known to 5 √(2/n) = 2.4 %.
    assert weight.var().item() == pytest.approx(variance, rel=0.024)
    bound = math.sqrt(3 * variance)
    assert (weight.abs().max() <= bound + 1e-6).item() == (distribution == "uniform")


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("init", ["he", "he_normal", "glorot", "glorot_normal"])
def test_every_layer_is_drawn_and_everything_else_is_neutral(make, init):
    network = make(init=init, generator=torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(0)
    for name, module in network.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            expected = torch.empty_like(module.weight)
            distribution = "normal" if init.endswith("normal") else "uniform"
            (he_ if init.startswith("he") else glorot_)(expected, distribution=distribution, generator=draws)
            assert torch.equal(module.weight, expected), name
    for name, value in network.state_dict().items():
        if name.endswith(("bias", "running_mean", "num_batches_tracked", "alpha")):
            assert (value == 0).all(), name
        elif name.endswith("running_var") or value.ndim == 1:
            assert (value == 1).all(), name


OTHERS = {
    "transformer": lambda **options: transformer(vocabulary=9, scale="layerscale", **options),
    "gates": lambda **options: conv2d(layers=8, shortcut="exclusive_gate", **options),
    "fixup": lambda **options: conv2d(layers=8, norm=None, scale="fixup", **options),
    "norm-free": lambda **options: mlp(depth=3, scale="nf", **options),
    "looks linear": lambda **options: mlp(depth=3, init="looks_linear", **options),
}


@pytest.mark.parametrize("make", (NETWORKS | OTHERS).values(), ids=NETWORKS | OTHERS)
def test_no_number_is_left_uninitialised(make, monkeypatch):
    """Fill fresh memory with nan: none must survive."""
    to_empty = nn.Module.to_empty

    def to_nan(self, **options):
        to_empty(self, **options)
        for value in self.state_dict().values():
            value.fill_(float("nan") if value.is_floating_point() else -1)

    monkeypatch.setattr(nn.Module, "to_empty", to_nan)
    for name, value in make(generator=torch.Generator().manual_seed(0)).state_dict().items():
        assert value.isfinite().all(), name
        assert (value >= 0).all() or value.is_floating_point(), name


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_a_generator_keeps_torchs_own_untouched(make):
    before = torch.get_rng_state()
    first = make(generator=torch.Generator().manual_seed(7))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)  # the global state now differs, and must not matter
    second = make(generator=torch.Generator().manual_seed(7))
    other = make(generator=torch.Generator().manual_seed(8))
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    weights = [m.weight for m in first.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))]
    others = [m.weight for m in other.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))]
    assert not any(map(torch.equal, weights, others))


def test_networks_are_made_on_the_default_device():
    with torch.device("meta"):
        network = conv2d(layers=110)
    assert {p.device.type for p in network.parameters()} == {"meta"}
    assert {p.device.type for p in mlp().parameters()} == {"cpu"}


def test_initialise_leaves_unknown_modules_alone():
    embedding = nn.Embedding(3, 4)
    before = embedding.weight.detach().clone()
    assert initialise_(embedding) is embedding
    assert torch.equal(embedding.weight, before)
    with pytest.raises(ValueError, match=r'init: unknown name "hee"\n.*Did you mean "he"\?'):
        initialise_(embedding, init="hee")


def test_zero_last_takes_the_later_of_weight_and_norm():
    branch = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 3), nn.GELU())
    zero_last_(branch)
    assert (branch(torch.randn(4, 3)) == 0).all()
    assert (branch[1].weight == 1).all()
    assert (branch[0].weight != 0).any()
    with pytest.raises(ValueError, match="no layer with weights and no norm"):
        zero_last_(nn.ReLU())

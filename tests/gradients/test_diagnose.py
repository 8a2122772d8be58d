"""A diagnosis finds what was put into a network, and nothing in a sound one."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import unbraid
import unbraid.nn as unn
from marks import slow
from networks import Chain, Residual, lively, mlp, normal
from unbraid.gradients import diagnose


def data(count=12, features=8):
    return [(normal(count, features, dtype=torch.float32), torch.arange(count) % 3)]


def network(depth=8, **options):
    generator = torch.Generator().manual_seed(0)
    options = {"norm": None, "scale": "1/sqrt(K)", **options}
    return unn.mlp(inputs=8, classes=3, width=32, depth=depth, generator=generator, **options).eval()


def found(model, **options):
    return {finding.what: finding for finding in diagnose(model, data(), **options).findings}


def test_a_sound_network():
    result = diagnose(network(), data())
    assert result.findings == ()
    assert str(result) == "8 blocks: nothing stands out."
    assert result.coherence.examples == 12


def test_a_signal_that_doubles_at_every_block_explodes():
    """Without scale or norm the variance passes a hundredfold at about the seventh doubling."""
    result = found(network(depth=24, scale=1.0))
    finding = result["exploding signal"]
    signal = diagnose(network(depth=24, scale=1.0), data()).signal
    assert finding.number == pytest.approx(float(signal.sum.variance[-1] / signal.source.variance[0]))
    first = next(k for k, v in enumerate(signal.sum.variance) if v > 100 * signal.source.variance[0])
    assert finding.where == f"blocks.{first}"
    assert 3 <= first <= 10
    assert "1/√K" in finding.helps
    assert f"{finding.number:.3g}-fold" in finding.words


def test_gradients_that_explode_are_placed():
    finding = found(network(depth=24, scale=1.0))["exploding gradient"]
    signal = diagnose(network(depth=24, scale=1.0), data()).signal
    last = max(k for k, g in enumerate(signal.gradient) if g > 100 * signal.gradient[-1])
    assert finding.where == f"blocks.{last}"


def test_a_plain_network_vanishes():
    plain = network(depth=12, init="glorot", scale=1.0).plain().eval()
    for parameter in plain.parameters():
        parameter.data *= 0.7
    form = unbraid.chain(plain, data()[0][0], layers=["layers"])
    result = found(form)
    assert {"vanishing signal", "vanishing gradient"} <= result.keys()
    signal = diagnose(form, data()).signal
    last = max(k for k, g in enumerate(signal.gradient) if g < signal.gradient[-1] / 100)
    assert result["vanishing gradient"].where.endswith(str(last))


def test_dead_and_loud_branches_are_named():
    model = lively(Chain(*(Residual(mlp(8)) for _ in range(4)), nn.Linear(8, 3)), dtype=torch.float32)
    for parameter in model.blocks[1].branch[2].parameters():
        parameter.data *= 1e-5
    for parameter in model.blocks[3].branch[2].parameters():
        parameter.data *= 1e3
    findings = diagnose(model, data()).findings
    assert [f.where for f in findings if f.what == "dead branch"] == ["blocks.1"]
    assert [f.where for f in findings if f.what == "loud branch"] == ["blocks.3"]


def test_what_is_not_finite_is_the_one_finding():
    form = unbraid.trace(network(), data()[0][0])
    name = next(n for n in form.state if n.startswith("blocks.5"))
    broken = replace(form, state={**form.state, name: torch.full_like(form.state[name], math.inf)})
    result = diagnose(broken, data())
    assert [finding.what for finding in result.findings] == ["not finite"]
    assert result.findings[0].where == "block 5 ('blocks.5')"
    assert result.coherence is None


def normed(kind: str, depth: int = 40):
    """A network with batch norm, plain or residual, and inputs whose statistics it has."""
    scale = {"plain": 1.0, "residual": 1.0, "scaled": 0.1}[kind]
    network = unn.mlp(
        inputs=8, classes=2, width=64, depth=depth, norm="batch", scale=scale, order="norm act linear +",
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    network = network.plain() if kind == "plain" else network
    inputs = normal(128, 8, dtype=torch.float32)
    network.train()
    with torch.no_grad():
        for _ in range(30):
            network(inputs)
    return network.eval(), inputs


def shattered(model, batches):
    result = diagnose(model, batches)
    return result, [finding for finding in result.findings if finding.what == "shattered gradients"]


@pytest.mark.parametrize("kind", ["plain", slow("residual"), "scaled"])
def test_gradients_shatter_in_a_deep_plain_network_with_batch_norm(kind):
    """Its residual twins keep what neighbours have in common; measured once more by differences of the network."""
    network, inputs = normed(kind)
    form = unbraid.chain(network, inputs, layers=["layers"]) if kind == "plain" else network
    result, found = shattered(form, [(inputs, (inputs[:, 0] > 0).long())])
    assert len(found) == (kind == "plain")
    # The slope along one line by central differences, and its correlation with itself one point on.
    along = torch.linspace(0, 1, 65)[:, None] * (inputs[1] - inputs[0]) + inputs[0]
    with torch.no_grad():
        values = network.double()(along.double())[:, 0]
    slopes = (values[1:] - values[:-1]) - (values[1:] - values[:-1]).mean()
    correlation = float((slopes[1:] * slopes[:-1]).sum() / slopes.square().sum())
    assert (correlation < 0.2) == (kind == "plain")
    if found:
        assert found[0].number == float(result.neighbours.values[1]) < 0.2
        assert found[0].helps.startswith("Give the network skips that are the identity, and scale every branch by 1/√K")


def test_examples_that_pull_apart_are_no_shattering():
    """40 blocks scaled by 1/√K, labels at random: cosines of about 0 between examples, neighbours alike."""
    model = network(depth=40)
    inputs = normal(64, 8, dtype=torch.float32)
    labels = torch.randint(0, 3, (64,), generator=torch.Generator().manual_seed(1))
    result, found = shattered(model, [(inputs, labels)])
    assert result.coherence.cosine[0].abs() < 0.2
    assert result.neighbours.values[1] > 0.5
    assert found == []
    assert result.findings == ()


def test_a_network_without_curvature_does_not_shatter():
    """Its gradient is the same everywhere but for rounding, which is white noise."""
    model = Chain(Residual(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))), nn.Linear(8, 3))
    form = unbraid.trace(lively(model, dtype=torch.float32), data()[0][0])
    result, found = shattered(form, data())
    assert result.neighbours.values.tolist() == [1.0, 1.0]
    assert found == []


def test_probabilities_that_sum_to_one_do_not_shatter():
    result, found = shattered(Chain(network(), nn.Softmax(1)).eval(), data())
    assert result.neighbours.values[1] > 0.2
    assert found == []


GROWS = "Scale every branch by 1/√K, or begin every branch with a norm, or begin training with the last layer"


@pytest.mark.parametrize(
    ("model", "what", "helps"),
    [
        (lambda: network(depth=24, scale=1.0), "exploding signal", GROWS),
        slow(lambda: network(depth=24, scale=1.0), "exploding gradient", GROWS),
        (lambda: _wild(network(depth=24)), "exploding signal", "Begin every branch with a norm, or begin training"),
        slow(
            lambda: _wild(network(depth=24), 0.2),
            "exploding signal",
            "Begin every branch with a norm, or begin training",
        ),
        slow(
            lambda: _wild(network(depth=24, norm="layer", order="norm linear act +")),
            "exploding signal",
            "Begin training",
        ),
        (lambda: _plain(9.0), "exploding signal", "Begin every branch with a norm, or initialise its layers"),
        (lambda: _plain(0.5), "vanishing signal", "Give the network skips that are the identity, or initialise"),
        (lambda: _plain(0.5), "vanishing gradient", "Give the network skips that are the identity, or initialise"),
        (lambda: _loud(network()), "loud branch", "Put a norm first in it, or give its last layer smaller weights."),
        (lambda: _loud(network(scale=1.0)), "loud branch", "Scale the branch by 1/√K, or put a norm first in it, or"),
    ],
)
def test_nothing_is_advised_that_the_network_has(model, what, helps):
    findings = [finding for finding in diagnose(model(), data()).findings if finding.what == what]
    assert findings
    assert all(finding.helps.startswith(helps) for finding in findings), findings


def _wild(model, by=3.0):
    """Weights so large that the signal grows whatever the branches are scaled by."""
    for name, parameter in model.named_parameters():
        if name.startswith("blocks") and parameter.ndim > 1:
            parameter.data *= by * 30
    return model


def _plain(by):
    plain = network(depth=12, scale=1.0).plain().eval()
    for parameter in plain.parameters():
        parameter.data *= by
    return unbraid.chain(plain, data()[0][0], layers=["layers"])


def _loud(model):
    for parameter in model.blocks[5].branch.parameters():
        parameter.data *= 1e4
    return model


def test_no_data_is_said():
    with pytest.raises(ValueError, match="batches must hold at least one"):
        diagnose(network(), [])


def test_a_diagnosis_speaks():
    result = diagnose(network(depth=24, scale=1.0), data())
    assert result.table().row_count == len(result.findings)
    assert str(result).startswith("exploding signal: the stream's variance grows")
    assert result.to_dict()["findings"][0]["what"] == "exploding signal"
    assert result.plot().axes
    assert diagnose(network(), data()).table().row_count == 1


def test_what_could_not_be_looked_for_is_said():
    inputs, labels = data()[0]
    alone = diagnose(network(), [(inputs[:1], labels[:1])])
    assert alone.coherence is None
    assert str(alone).endswith("not looked for: shattering, as there is one example alone.")

    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x):
            picked = torch.nonzero(x[:, 0] > -1e9)[:, 0]  # its size depends on the data: no rule for one at a time
            return x + self.linear(x).relu().index_select(0, picked)

    torch.manual_seed(0)
    result = diagnose(nn.Sequential(Sorted(), nn.Linear(8, 3)).eval(), data())
    assert result.coherence is None
    assert "gradients of single examples cannot be taken" in result.to_dict()["left_out"]

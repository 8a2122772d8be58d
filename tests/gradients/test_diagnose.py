"""A diagnosis finds what was put into a network, and nothing in a sound one."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import unbraid
import unbraid.nn as unn
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


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_gradients_shatter_in_a_deep_plain_network_with_batch_norm(kind):
    """Its residual twin, scaled by 0.1, keeps what examples have in common."""
    network = unn.mlp(
        inputs=8, classes=2, width=64, depth=40, norm="batch", scale=1.0 if kind == "plain" else 0.1,
        order="norm act linear +",
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    network = network.plain() if kind == "plain" else network
    inputs = normal(128, 8, dtype=torch.float32)
    network.train()
    with torch.no_grad():
        for _ in range(30):
            network(inputs)  # the running statistics of these inputs
    network.eval()
    form = unbraid.chain(network, inputs, layers=["layers"]) if kind == "plain" else network
    result = diagnose(form, [(inputs, (inputs[:, 0] > 0).long())])
    shattered = [finding for finding in result.findings if finding.what == "shattered gradients"]
    assert len(shattered) == (kind == "plain")
    if shattered:
        assert shattered[0].number == float(result.coherence.cosine[0])
        assert shattered[0].number < 0.5 / 128


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

"""What the studies of hyper-connections and attention residuals measure, against sums by hand; small and untrained."""

import sys
from pathlib import Path

import pytest
import torch

import unbraid

sys.path.append(str(Path(__file__).parents[2] / "studies"))

import attention_residuals
import hyperconnections
from _margin import margin_of
from _streams import HyperNetwork, doubly_stochastic


def examples(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 40, generator=generator, dtype=torch.float64), torch.arange(6) % 10


def of_seed(build, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().double().eval()


def test_sinkhorn_makes_rows_and_columns_sum_to_one():
    scores = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    r = doubly_stochastic(scores)
    assert r.min() > 0
    torch.testing.assert_close(r.sum(-2), torch.ones(5, 4, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(r.sum(-1), torch.ones(5, 4, dtype=torch.float64), rtol=0, atol=1e-3)


def test_what_streams_add_sums_to_what_terms_add_and_another_head_is_noticed():
    network = of_seed(lambda: HyperNetwork(40, 10, 2, free=True))
    x, labels = examples()
    form = unbraid.trace(network, x)
    found = hyperconnections.by_stream(form, network, x, labels)
    scores = network(x).detach()
    bias = network.head.bias.detach()
    margin = (scores - bias).gather(1, labels[:, None])[:, 0] - (scores - bias).mean(1)
    assert sum(map(sum, found["added"])) == pytest.approx(float(margin.mean()), rel=1e-10)
    assert [sum(shares) for shares in found["energy"]] == pytest.approx([1, 1, 1])
    other = of_seed(lambda: HyperNetwork(40, 10, 2, free=True), seed=1)
    with pytest.raises(ArithmeticError, match="contributions by stream depart from those of the terms by"):
        hyperconnections.by_stream(form, other, x, labels)


def test_contributions_to_the_head_are_those_of_a_sum_by_hand():
    network = of_seed(lambda: attention_residuals.AttentionResiduals(2))
    with torch.no_grad():
        network.query.normal_(generator=torch.Generator().manual_seed(2))
    x, labels = examples()
    found = attention_residuals.compare(network, 2, x, labels)
    with torch.no_grad():
        stack = torch.stack(network.outputs(x, 2), 1)
        alpha = network.weights(2, stack)
        norm, last = network.head
        read = (alpha[..., None] * stack).sum(1)
        rms = (read.square().mean(-1, keepdim=True) + torch.finfo(read.dtype).eps).sqrt()
        direction = norm.weight * (last.weight[labels] - last.weight.mean(0)) / rms
        size = (alpha * (stack * direction[:, None]).sum(-1)).abs()
    share = (size / size.sum(1, keepdim=True)).mean(0)
    assert found["contribution"] == pytest.approx(share.tolist(), rel=1e-9)
    assert found["weight"] == pytest.approx(alpha.mean(0).tolist(), rel=1e-12)
    assert found["agree"] == float((alpha.argmax(1) == size.argmax(1)).double().mean())


def test_a_layer_is_asked_along_the_gradient_at_its_output():
    """A nudge of the layer's output moves the margin by what the gradient says."""
    network = of_seed(lambda: attention_residuals.AttentionResiduals(2))
    x, labels = examples()
    gradient = attention_residuals.gradient(network, 1, x, labels)
    margin, nudge = margin_of(labels), 1e-6
    plain = margin(network(x))
    hook = network.layer[1].register_forward_hook(lambda _module, _args, output: output + nudge)
    moved = margin(network(x))
    hook.remove()
    torch.testing.assert_close((moved - plain) / nudge, gradient.sum(1), rtol=1e-4, atol=1e-7)


def test_agreement_and_rank_correlation():
    a = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    b = torch.tensor([[10.0, 30.0], [20.0, 20.0], [30.0, 10.0]])
    assert attention_residuals.agreement(a, b) == 0.5
    assert attention_residuals.rank_correlation(a, b) == pytest.approx(0.0, abs=1e-12)
    assert attention_residuals.rank_correlation(a, a) == pytest.approx(1.0)

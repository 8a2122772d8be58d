"""Gradients of single examples and of neighbouring inputs, against loops over autograd."""

from itertools import permutations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from networks import F64, Chain, Residual, error, lively, mlp, normal
from unbraid import trace
from unbraid.gradients import example_coherence, input_autocorrelation, line, update_predictiveness


@pytest.fixture(scope="module")
def setting():
    network = lively(Chain(*(Residual(mlp(5)) for _ in range(3)), nn.Linear(5, 3)))
    x = normal(8, 5)
    return network, trace(network, x), x, torch.arange(8) % 3


def gradients(network, x, labels, block=None):
    """[examples, parameters], one backward pass an example."""
    chosen = list((network if block is None else network.blocks[block]).parameters())
    rows = []
    for i in range(len(x)):
        found = torch.autograd.grad(cross_entropy(network(x[i : i + 1]), labels[i : i + 1]), chosen)
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


@pytest.mark.parametrize(("sizes", "chunk"), [((8,), 16), ((3, 5), 2), ((1, 7), 1)])
def test_coherence_is_that_of_a_loop_over_pairs(setting, sizes, chunk):
    network, form, x, labels = setting
    batches = list(zip(x.split(sizes), labels.split(sizes), strict=True))
    found = example_coherence(form, batches, chunk=chunk)
    assert found.names == ("blocks.0", "blocks.1", "blocks.2")
    for k in range(3):
        g = gradients(network, x, labels, k)
        cosines = [float(torch.cosine_similarity(g[i], g[j], dim=0)) for i, j in permutations(range(8), 2)]
        assert found.cosine[k] == pytest.approx(sum(cosines) / len(cosines), rel=1e-6, abs=1e-7)
        assert found.norms[k] == pytest.approx(float(g.norm(dim=1).mean()), rel=1e-6)
        assert found.ratio[k] == pytest.approx(float(g.mean(0).norm() / g.norm(dim=1).mean()), rel=1e-6)


def test_equal_examples_agree(setting):
    _, form, x, labels = setting
    found = example_coherence(form, [(x[:1].expand(4, 5), labels[:1].expand(4))])
    assert found.cosine.tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    assert found.ratio.tolist() == pytest.approx([1, 1, 1], abs=1e-6)


def test_one_example_cannot_be_compared(setting):
    _, form, x, labels = setting
    with pytest.raises(ValueError, match="compares examples, and 1 came"):
        example_coherence(form, [(x[:1], labels[:1])])
    with pytest.raises(ValueError, match="no batch has two"):
        update_predictiveness(form, [(x[:1], labels[:1])])


def test_predictiveness_is_that_of_real_steps(setting):
    """Step for one example on a copy of the network, and take the others' gradients anew."""
    network, form, x, labels = setting
    found = update_predictiveness(form, [(x[:3], labels[:3])], (0.0, 0.01, 0.3), others=2)
    before = gradients(network, x[:3], labels[:3])
    parameters = list(network.parameters())
    kept = [p.detach().clone() for p in parameters]
    for place, step in enumerate(found.steps):
        changes, cosines = [], []
        for i in range(3):
            start = 0
            with torch.no_grad():
                for p in parameters:
                    p -= step * before[i, start : start + p.numel()].view_as(p)
                    start += p.numel()
            after = gradients(network, x[:3], labels[:3])
            with torch.no_grad():
                for p, old in zip(parameters, kept, strict=True):
                    p.copy_(old)
            for j in range(3):
                if j != i:
                    changes.append(float((after[j] - before[j]).norm() / before[j].norm()))
                    cosines.append(float(torch.cosine_similarity(after[j], before[j], dim=0)))
        assert found.change[place] == pytest.approx(sum(changes) / 6, rel=1e-5, abs=1e-7)
        assert found.cosine[place] == pytest.approx(sum(cosines) / 6, rel=1e-5)
    assert found.pairs == 6
    assert found.change[0] < 1e-12


def test_autocorrelation_of_a_known_function():
    """y = sin x on a whole period: d = cos x, whose autocorrelation is nearly the cosine of the lag, shortened."""
    grid = torch.linspace(0, 2 * torch.pi, 401, dtype=F64)[:-1, None]
    found = input_autocorrelation([torch.sin], grid, lags=100)
    points, d = 400, torch.cos(grid[:, 0])
    for lag in (0, 1, 50, 100):
        wanted = float((d[: points - lag] * d[lag:]).sum() / d.square().sum())
        assert found.values[lag] == pytest.approx(wanted, abs=1e-12)
    assert found.values[0] == 1
    assert found.band.isnan().all()
    assert found.norms[0] == pytest.approx(0.5**0.5)
    assert found.spacing == pytest.approx(2 * torch.pi / 400)


def test_white_noise_has_no_neighbours():
    """Slopes drawn independently for every point: within four standard errors, 4/√(points · networks), of zero."""
    grid = torch.linspace(-2, 2, 256, dtype=F64)[:, None]

    def noisy(seed):
        slopes = normal(256, 1, seed=seed)
        return lambda x: slopes * x

    found = input_autocorrelation([noisy(seed) for seed in range(20)], grid)
    assert found.values[1:10].abs().max() < 4 / (256 * 20) ** 0.5
    assert ((found.band[1:, 0] <= found.values[1:]) & (found.values[1:] <= found.band[1:, 1])).all()


def test_a_straight_line_is_as_alike_as_can_be():
    grid = torch.linspace(-1, 1, 9, dtype=F64)[:, None]
    assert input_autocorrelation([lambda x: 3 * x], grid).values.tolist() == [1, 1, 1]


def test_lines_through_data():
    data = normal(10, 2, 3)
    found = line(data, 5, length=2.0, generator=torch.Generator().manual_seed(1))
    assert found.shape == (5, 2, 3)
    a, b = found[0] * 0.75 + found[4] * 0.25, found[0] * 0.25 + found[4] * 0.75
    assert sum(bool((point - end).abs().max() < 1e-12) for point in data for end in (a, b)) == 2
    assert error(found[2], (a + b) / 2) < 1e-12


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (torch.zeros(2, 1), "at least 3 points on a line, and 2 came"),
        (torch.tensor([[0.0], [1.0], [3.0]]), "the same distance apart"),
        (torch.zeros(4, 2), "the same distance apart"),
    ],
)
def test_what_is_no_line_is_said(grid, message):
    with pytest.raises(ValueError, match=message):
        input_autocorrelation([torch.sin], grid)
    with pytest.raises(ValueError, match="needs at least one network"):
        input_autocorrelation([], torch.linspace(0, 1, 9)[:, None])


def test_results_speak(setting):
    _, form, x, labels = setting
    for found in (
        example_coherence(form, [(x, labels)]),
        update_predictiveness(form, [(x[:3], labels[:3])], (0.01, 0.1)),
        input_autocorrelation([torch.sin, torch.cos], torch.linspace(-2, 2, 33)[:, None]),
    ):
        assert found.table().row_count
        assert found.to_dict()
        assert found.plot().axes

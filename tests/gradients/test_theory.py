"""Closed forms, each against networks with random weights: the mean over seeds, within four standard errors of it."""

import math

import pytest
import torch
from torch import Tensor, nn

import unbraid.nn as unn
from marks import slow
from unbraid import trace
from unbraid.gradients import signal, theory

SEEDS = 24


def within_its_spread(samples: list[float], wanted: float) -> None:
    """The mean of independent samples lies within four of its standard errors: once in 16,000 honest tests it does not.

    A closed form that is wrong by more than that fails; the spread must be small enough to tell it from its neighbours.
    """
    values = torch.tensor(samples, dtype=torch.float64)
    standard_error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - wanted) <= 4 * standard_error + 1e-9
    assert standard_error < 0.1 * abs(wanted)


def variances(seed: int, depth: int, **options) -> list[float]:
    """Of the stream at the first fork and after each block, over normal inputs, relative to the first."""
    generator = torch.Generator().manual_seed(seed)
    network = unn.mlp(inputs=64, width=256, depth=depth, init="he_normal", generator=generator, **options)
    x = torch.randn(256, 64, generator=generator)
    network = network.double().train(options.get("norm") == "batch")
    found = signal(trace(network, x.double()), [(x.double(), None)], loss=None)
    every = [*found.source.variance.tolist(), *found.sum.variance.tolist()]
    means = [*found.source.squared_mean.tolist(), *found.sum.squared_mean.tolist()]
    # He's rule keeps the second moment, mean and variance together.
    moments = [a + b for a, b in zip(every, means, strict=True)]
    return [moment / moments[0] for moment in moments]


@pytest.mark.parametrize(
    ("closed", "options"),
    [
        (theory.variance_doubling, {"norm": None, "order": "act linear +"}),
        slow(theory.variance_scaled, {"norm": None, "order": "act linear +", "scale": "1/sqrt(K)"}),
        slow(theory.variance_fixup, {"norm": None, "order": "act linear +", "scale": "zero"}),
    ],
)
def test_variance_by_depth(closed, options):
    """Doubling is only that where branch and skip are uncorrelated: so they are in the mean over weights."""
    depth = 6
    runs = [variances(seed, depth, **options) for seed in range(SEEDS)]
    for k in (1, 3, 6):
        within_its_spread([run[k] for run in runs], closed(depth)[k])


@pytest.mark.slow
def test_batch_norm_adds_one_a_block():
    """The stream at the first fork has a variance of its own, v; after k blocks it is v + k."""
    depth, found = 6, []
    for seed in range(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        network = unn.mlp(
            inputs=64, width=256, depth=depth, order="norm act linear +", init="he_normal", generator=generator
        )
        x = torch.randn(256, 64, generator=generator).double()
        result = signal(trace(network.double().train(), x), [(x, None)], loss=None)
        start = float(result.source.variance[0] + result.source.squared_mean[0])
        ends = result.sum.variance + result.sum.squared_mean
        found.append([float(end) - start for end in ends])
    for k in (1, 3, 6):
        within_its_spread([run[k - 1] for run in found], theory.variance_batch_norm(depth)[k] - 1)


class Rescaled(nn.Module):
    """(x + f(x)) / √2."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        weight = torch.randn(width, width, generator=generator, dtype=torch.float64) * math.sqrt(2 / width)
        self.weight = nn.Parameter(weight)

    def forward(self, h: Tensor) -> Tensor:
        return (h + torch.relu(h) @ self.weight.T) / math.sqrt(2)


def test_rescaled_sums_keep_the_variance():
    runs = []
    for seed in range(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        network = nn.Sequential(*(Rescaled(256, generator) for _ in range(6)))
        x = torch.randn(256, 256, generator=generator, dtype=torch.float64)
        runs.append(float(network(x).detach().square().mean() / x.square().mean()))
    within_its_spread(runs, theory.variance_rescaled(6)[6])


def correlation(seed: int, layers: int, kind: str, scale: float = 1.0) -> float:
    """Of the gradients at two inputs whose units are on or off independently, as the theorems take them to be."""
    generator = torch.Generator().manual_seed(seed)
    width = 400
    pair = torch.randn(1, width, generator=generator, dtype=torch.float64).expand(2, width)
    levels = [1.0 + scale**2 * level for level in range(layers)]
    for level in reversed(levels):
        weight = torch.randn(width, width, generator=generator, dtype=torch.float64) * math.sqrt(2 / width)
        on = torch.randint(2, (2, width), generator=generator).double()
        branch = (pair @ weight) * on  # the backward pass of W relu(h)
        if kind == "plain":
            pair = branch
        elif kind == "residual":
            pair = pair + branch
        else:  # a batch norm before the branch divides by the standard deviation of its input
            pair = pair + scale * branch / math.sqrt(level)
    return float((pair[0] * pair[1]).mean() / pair.square().mean())


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "closed"), [("plain", theory.plain_correlation), ("residual", theory.residual_correlation)]
)
def test_correlation_of_gradients(kind, closed, layers):
    within_its_spread([correlation(seed, layers, kind) for seed in range(2 * SEEDS)], closed(layers))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_correlation_of_gradients_with_batch_norm(scale):
    for layers in (1, 4, 12):
        samples = [correlation(seed, layers, "batch norm", scale) for seed in range(SEEDS)]
        within_its_spread(samples, theory.residual_correlation_batch_norm(layers, scale))


def test_the_limit_of_batch_norm_is_its_rate():
    """The ratio of the product to 1/(β√L) becomes constant: 2/√π at β = 1."""
    ratios = [
        theory.residual_correlation_batch_norm(blocks) / theory.residual_correlation_limit(blocks)
        for blocks in (100, 1000, 10000)
    ]
    assert abs(ratios[2] - 2 / math.sqrt(math.pi)) < 1e-4
    assert abs(ratios[2] - ratios[1]) < 0.2 * abs(ratios[1] - ratios[0])


def test_the_closed_forms_by_hand():
    assert theory.variance_doubling(3) == [1, 2, 4, 8]
    assert theory.variance_batch_norm(3) == [1, 2, 3, 4]
    assert theory.variance_scaled(4) == pytest.approx([1.25**k for k in range(5)])
    assert theory.variance_scaled(2, 1.0) == [1, 2, 4]
    assert theory.plain_correlation(3) == 1 / 8
    assert theory.residual_correlation(2) == 9 / 16
    assert theory.residual_correlation_batch_norm(1) == 0.75
    assert theory.residual_correlation_limit(25, 0.1) == pytest.approx(2)
    assert set(theory.CURVES) == {"doubling", "1/√2", "batch norm", "1/√K", "Fixup"}

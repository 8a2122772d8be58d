"""Differences that are no skip connections, and N-BEATS, of which a part is open."""

import pytest
import torch
from torch import nn

from kinds.checks import FORWARD, SUMS
from kinds.known import ROWS, WIDTH
from kinds.spelled_sums import shared
from kinds.told import Told
from networks import Chain, Residual, error, lively, mlp
from unbraid import gradient_spectrum, trace
from unbraid.errors import NotResidualError

NONE = {
    "f - x": lambda net, x: net.f(x) - x,
    "x - mean(x)": lambda net, x: torch.tanh(x - x.mean(-1, keepdim=True)),
    "x - max(x)": lambda net, x: torch.exp(x - x.amax(-1, keepdim=True)),
    "pool(x) - x": lambda net, x: nn.functional.avg_pool1d(x[:, None], 3, stride=1, padding=1)[:, 0] - x,
    "x + (f - x)": lambda net, x: x + (net.f(x) - x),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NONE)
def test_these_differences_are_none(name):
    model = lively(Told(lambda net, mark, x: NONE[name](net, x), f=mlp(WIDTH)))
    with pytest.raises(NotResidualError):
        trace(model, ROWS)
    form = trace(lively(Chain(model, Residual(mlp(WIDTH)))), ROWS)
    assert [(b.name, b.skip, b.join) for b in form.all_blocks] == [("blocks.1", "identity", "sum")]
    assert form.refusals


@pytest.mark.slow
def test_nbeats_of_shared_layers():
    """The backcasts are blocks. Open: W θ₀ + W θ₁, θ₁ computed from θ₀, is by the letter a projection of θ₀."""
    network = lively(shared())
    form = trace(network, ROWS)
    assert [b.skip for b in form.all_blocks if b.name.startswith("back")] == ["identity", "identity"]
    assert error(form(ROWS), network(ROWS)) <= FORWARD
    spectrum = gradient_spectrum(form, ROWS, target=1)
    assert spectrum.error <= SUMS

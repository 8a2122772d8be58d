"""Models whose branches compute in a coarser type than their trunk."""

import pytest
import torch
from torch import nn

import unbraid
from networks import Does, error, lively, mlp, normal
from unbraid.capture import _functional
from unbraid.errors import InexactError
from unbraid.form import trace
from unbraid.walk import Polynomials

F32, BF16 = torch.float32, torch.bfloat16


class Net(nn.Module):
    """Two blocks of float32 parameters; the whole, or nothing of it, runs under autocast."""

    def __init__(self, *, casts):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.branch = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
            self.head = nn.Linear(8, 3)
        self.casts = casts

    def forward(self, x):
        with torch.autocast("cpu", dtype=BF16, enabled=self.casts or torch.is_autocast_enabled("cpu")):
            h = x + self.branch(x)
            return self.head(h + self.branch(h))


@pytest.mark.parametrize("tracer", ["export", "dispatch"])
def test_a_model_that_casts_by_itself(tracer):
    model, x = Net(casts=True).eval(), normal(4, 8, dtype=F32)
    form = unbraid.trace(model, x, tracer=tracer)
    assert (len(form.blocks), form.dtype, form.precision) == (2, F32, BF16)
    assert form(x).dtype is BF16
    assert form(x).equal(model(x))


@pytest.mark.parametrize("tracer", ["export", "dispatch"])
def test_a_form_under_autocast_is_the_model_under_autocast(tracer):
    """Traced within it, and run within it: the casts are torch's, not the graph's."""
    model, x = Net(casts=False).eval(), normal(4, 8, dtype=F32)
    with torch.autocast("cpu", dtype=BF16):
        form = unbraid.trace(model, x, tracer=tracer)
        assert form(x).dtype is BF16
        assert form(x).equal(model(x))


def test_sums_are_exact_to_the_coarsest_type():
    model, x = Net(casts=True).eval(), normal(4, 8, dtype=F32)
    form = unbraid.trace(model, x)
    plain = unbraid.trace(Net(casts=False).eval(), x)
    assert plain.precision is F32
    for analysis in (unbraid.gradient_spectrum, unbraid.value_spectrum, unbraid.all_paths):
        coarse, fine = analysis(form, x, target=1), analysis(plain, x, target=1)
        assert fine.error <= 1e-5 < coarse.error <= 5e-2
    assert error(unbraid.unravel(form, x).total(), unbraid.unravel(form, x).stream) <= 5e-2


def test_what_is_lost_is_seen_in_the_coarse_type_too(monkeypatch):
    form = unbraid.trace(Net(casts=True).eval(), normal(4, 8, dtype=F32))
    monkeypatch.setattr(Polynomials, "plus", lambda self, a, b: a)
    with pytest.raises(InexactError, match=r"must sum to the gradient to 0\.05"):
        unbraid.gradient_spectrum(form, normal(4, 8, dtype=F32), target=1)


def gate_before(net, x):
    with torch.no_grad():
        gate = torch.sigmoid(net.g(x))
    with torch.autocast("cpu", enabled=False):
        y = net.f(x)
    return x + y * gate


def gate_around(net, x):
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        gate = torch.sigmoid(net.g(x))
    return x + net.f(x) * gate


def gate_returned(net, x):
    with torch.autocast("cpu", enabled=False):
        y = net.f(x)
    with torch.no_grad():
        gate = torch.sigmoid(net.g(x))
    return x + y * gate, gate


@pytest.mark.parametrize("function", [gate_before, gate_around, gate_returned])
def test_a_region_without_gradients_stays_one_beside_an_autocast_region(function):
    """torch traces a model with an autocast region once more, and forgets the others; trace compares gradients."""
    model = lively(Does(function, f=mlp(6), g=mlp(6)))
    form = trace(model, normal(3, 6), tracer="export")
    assert form.verify((normal(3, 6, seed=1),)).error <= 1e-12


def test_a_region_that_is_forgotten_is_seen(monkeypatch):
    monkeypatch.setattr(_functional, "_detach_what_leaves_regions", lambda module: None)
    with pytest.raises(InexactError, match="The form's gradient must be the model's own"):
        trace(lively(Does(gate_before, f=mlp(6), g=mlp(6))), normal(3, 6), tracer="export")

"""A model that draws random numbers in eval mode: the form says so, and so does what cannot hold for two runs."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional

import unbraid
from networks import Chain, Does, Residual, error, lively, mlp, normal
from unbraid import paths
from unbraid.errors import InexactError
from unbraid.form import trace

X = normal(3, 6)
DATA = [(X, torch.tensor([0, 1, 2]))]
EXACT = 1e-10


class Forgetful(nn.Module):
    """A dropout that a model leaves in train mode."""

    def forward(self, x):
        return functional.dropout(x, 0.5, training=True)


def trunk():
    return Chain(*(Residual(mlp(6)) for _ in range(2)))


def sampled(net, x):
    h = net.a(x)
    return net.head(net.b(net.mean(h) + torch.randn_like(h) * torch.exp(0.5 * net.spread(h))))


def discrete(hard):
    return lambda net, x: net.head(net.b(functional.gumbel_softmax(net.a(x), hard=hard)))


def thinned(net, x):
    h = net.a(x)
    return net.head(net.b(h * torch.bernoulli(h.sigmoid())))


def noisy_head(net, x):
    return net.head(net.b(net.a(x))) * (1 + torch.rand(4, dtype=x.dtype))


# name: (model, the operator that draws)
RANDOM = {
    "a variational autoencoder": (sampled, "randn_like"),
    "gumbel": (discrete(False), "exponential"),
    "gumbel, hard": (discrete(True), "exponential"),
    "bernoulli": (thinned, "bernoulli"),
    "dropout in train mode": (lambda net, x: net.head(net.b(net.drop(net.a(x)))), "dropout"),
    "a head with noise": (noisy_head, "rand"),
}


def made(name):
    parts = {"a": trunk(), "b": trunk(), "head": nn.Linear(6, 4), "mean": nn.Linear(6, 6), "spread": nn.Linear(6, 6)}
    return trace(lively(Does(RANDOM[name][0], **parts, drop=Forgetful())), X)


@pytest.mark.parametrize("name", RANDOM)
def test_the_form_names_what_is_random_and_where(name):
    form = made(name)
    line = rf"draws random numbers: {RANDOM[name][1]} at \w+\.py:\d+"
    for shown in (str(form), form._repr_html_().replace("\n", " ")):
        assert re.search(line, shown)


def test_a_form_without_chance_says_nothing_of_it():
    form = trace(lively(Chain(Residual(nn.Sequential(mlp(6), nn.Dropout(0.5))), Residual(mlp(6)))), X)
    assert "random" not in str(form)


@pytest.mark.parametrize("name", [name for name in RANDOM if name != "a head with noise"])
def test_what_compares_two_runs_says_why_it_cannot(name):
    form, operator = made(name), RANDOM[name][1]
    said = rf"(?s)must .*\n  The model draws random numbers, so that no two runs are alike: {operator} at \w+\.py:\d+"
    for analysis in (
        lambda: unbraid.gradient_spectrum(form, X, target=1),
        lambda: paths.gradient_parts(form, X, target=1),
        lambda: paths.mean_spectrum(form, DATA),
    ):
        with pytest.raises(InexactError, match=said):
            analysis()


@pytest.mark.parametrize("name", ["gumbel", "gumbel, hard", "bernoulli"])
def test_unravel_says_it_where_the_trunk_draws(name):
    with pytest.raises(InexactError, match=rf"unravel: .*\n.*random numbers.*: {RANDOM[name][1]} at \w+\.py:\d+"):
        unbraid.unravel(made(name), X)


def test_what_the_head_draws():
    form = made("a head with noise")
    for analysis in (
        lambda: unbraid.attribute(form, X, target=1),
        lambda: unbraid.unravel(form, X).attribute(1),
        lambda: unbraid.unravel(form, X).lens(),
    ):
        with pytest.raises(
            InexactError, match=r"(?s)random numbers.*: rand at \w+\.py:\d+.*\n  Let it take what it draws"
        ):
            analysis()


def test_dropout_is_told_to_be_switched_off():
    said = r"dropout at \w+\.py:\d+\.\n  Trace it in eval mode; where it draws there, too, let it take what it draws"
    with pytest.raises(InexactError, match=said):
        unbraid.gradient_spectrum(made("dropout in train mode"), X, target=1)


@pytest.mark.parametrize("name", RANDOM)
def test_values_hold_the_numbers_of_one_draw(name):
    """The frozen form has nothing random left: paths and constants sum to the target of that draw."""
    form = made(name)
    for found in (
        unbraid.value_spectrum(form, X, target=1),
        unbraid.all_paths(form, X, target=1),
        unbraid.all_paths(form, X, target=1, linearize="jacobian"),
    ):
        total = found.total() if hasattr(found, "total") else found.values.sum(0) + found.constants
        assert error(total, found.target) < EXACT


def test_lesions_name_the_line():
    with pytest.raises(ValueError, match=r"lesion: .*the graph holds randn_like at \w+\.py:\d+ \(random\)"):
        unbraid.lesion(made("a variational autoencoder"), DATA, functional.cross_entropy)

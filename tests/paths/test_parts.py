"""The gradient through single blocks and pairs: against Jacobians multiplied by hand, single paths, and cuts."""

from itertools import combinations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from networks import Chain, Residual, error, lively, mlp, normal
from plans import EVERY, made, plans
from unbraid import trace
from unbraid.errors import InexactError
from unbraid.paths import all_paths, gradient_parts, gradient_spectrum
from unbraid.walk import BlockSetStack, ThroughBlocks


def test_parts_are_products_of_jacobians():
    """(I + J_3)…J_k…(I + J_0): the identity is left out at the blocks that must be passed."""
    network = lively(Chain(*(Residual(mlp(3)) for _ in range(4))))
    h = x = normal(1, 3)
    jacobians = []
    for block in network.blocks:
        jacobians.append(torch.autograd.functional.jacobian(block.branch, h).sum(2)[0])
        h = block(h).detach()
    found = gradient_parts(trace(network, x), x, target=1, by="pair")
    assert found.sets == (*((k,) for k in range(4)), *combinations(range(4), 2))
    for blocks, part in zip(found.sets, found.gradients, strict=True):
        product = torch.eye(3, dtype=x.dtype)
        for k, jacobian in enumerate(jacobians):
            product = (jacobian if k in blocks else jacobian + torch.eye(3, dtype=x.dtype)) @ product
        assert error(part[0], product[1]) < 1e-12


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plans(), st.booleans(), st.integers(0, 99))
def test_parts_gather_the_paths_that_pass(plan, nested, seed):
    """⟨g_S, x⟩ is the sum of the values of all paths whose masks pass every block of S."""
    _, x, form = made(plan, seed=seed)
    found = gradient_parts(form, x, target=1, by="pair", nested=nested)
    every = all_paths(form, x, target=1, linearize="jacobian", nested=nested)
    column = {block: place for place, block in enumerate(sorted(form.lengths(nested).weights))}
    weights = form.lengths(nested).weights
    scale = every.values.abs().sum()
    for blocks, part in zip(found.sets, found.gradients, strict=True):
        passes = torch.ones(len(every), dtype=torch.bool)
        for block in blocks:
            choices = every.masks[:, column[block]]
            passes &= torch.tensor([c >= 0 and weights[block][c] > 0 for c in choices.tolist()])
        assert (every.values[passes].sum(0) - (part * x).sum(1)).abs().max() <= 1e-10 * scale


def test_single_parts_sum_to_the_mean_length_of_the_spectrum():
    """Σ_k g_k = Σ_m m g_m."""
    _, x, form = made(EVERY)
    parts = gradient_parts(form, x, target=1)
    spectrum = gradient_spectrum(form, x, target=1)
    weighted = sum(m * part for m, part in enumerate(spectrum.gradients))
    assert error(parts.gradients.sum(0), weighted) < 1e-12


@pytest.mark.parametrize("by", ["block", "pair"])
@pytest.mark.parametrize("at", ["source", 1, 4])
def test_parts_by_cutting(by, at):
    """The check itself: error is small and measured, and nan without it."""
    _, x, form = made(EVERY)
    assert gradient_parts(form, x, target=1, by=by, at=at).error < 1e-12
    unchecked = gradient_parts(form, x, target=1, by=by, at=at, check=False)
    assert unchecked.error != unchecked.error


@pytest.mark.parametrize("by", ["block", "pair"])
def test_a_mark_that_is_lost_is_seen(monkeypatch, by):
    _, x, form = made(EVERY)
    enter = ThroughBlocks.enter

    def lost(self, add, operand, value):
        grown = enter(self, add, operand, value)
        return BlockSetStack(grown.sets, torch.cat([grown.stack[:1], 0.5 * grown.stack[1:]]))

    monkeypatch.setattr(ThroughBlocks, "enter", lost)
    with pytest.raises(InexactError, match=r"gradient_parts: the parts must through \(.*\) equal .* they depart by"):
        gradient_parts(form, x, target=1, by=by)


def test_a_lost_path_is_seen(monkeypatch):
    _, x, form = made(EVERY)
    monkeypatch.setattr(ThroughBlocks, "plus", lambda self, a, b: a)
    with pytest.raises(InexactError, match="gradient_parts: the parts must sum to the gradient to 1e-10"):
        gradient_parts(form, x, target=1)


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_change_nothing(chunk):
    _, x, form = made(EVERY)
    whole = gradient_parts(form, x, target=1, by="pair")
    assert error(gradient_parts(form, x, target=1, by="pair", chunk=chunk).gradients, whole.gradients) < 1e-14


def test_parts_speak():
    _, x, form = made(EVERY)
    found = gradient_parts(form, x, target=1, by="pair")
    assert set(found.to_dict()) == {"blocks", "sets", "norms", "signed", "error", "summed"}
    assert found.table().row_count == len(found.sets) == 5 + 10
    shares = found.matrix()
    assert shares.equal(shares.T)
    assert not shares.isnan().any()
    alone = gradient_parts(form, x, target=1).matrix()
    assert alone.diagonal().equal(shares.diagonal())
    assert alone.isnan().sum() == 5 * 4


def test_there_is_no_such_source():
    _, x, form = made(EVERY)
    with pytest.raises(
        ValueError, match=r'at: "source", a block\'s index, or one of the sources \[.*\]; \'tokens\' came'
    ):
        gradient_parts(form, x, target=1, at="tokens")

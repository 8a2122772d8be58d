"""Direct attribution: a scalar of the output split over the terms, the head frozen. Oracles: heads worked by hand."""

from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from book_networks import LINEAR, Reader, batch, features, images, observed
from networks import F64, Chain, Residual, error, lively, mlp, normal
from unbraid.errors import InexactError
from unbraid.form import _target_segment, trace
from unbraid.results import scalar
from unbraid.terms import attribute, unravel


def _loss(output):
    return cross_entropy(output, torch.tensor([0, 1, 2]), reduction="none")


FEATURES = {
    "an int": (1, lambda y: y[:, 1]),
    "a negative int": (-1, lambda y: y[:, -1]),
    "a tensor": (torch.tensor([3, 0, 2]), lambda y: y[[0, 1, 2], [3, 0, 2]]),
    "a linear function": (lambda y: y[:, 0] - y[:, 1], lambda y: y[:, 0] - y[:, 1]),
    "a loss": (_loss, _loss),
}


@cache
def _taken_apart(order):
    network = features(order=order)
    x = batch(network)
    return network(x).detach(), unravel(trace(network, x), x)


@pytest.mark.parametrize("order", [LINEAR[1], LINEAR[7], LINEAR[3]])
@pytest.mark.parametrize("kind", FEATURES)
def test_contributions_sum_to_the_target(order, kind):
    output, terms = _taken_apart(order)
    target, by_hand = FEATURES[kind]
    found, wanted = terms.attribute(target), by_hand(output)
    assert error(found.target, wanted) < 1e-12
    assert error(found.values.sum(0) + found.constants, wanted) < 1e-10
    assert error(found.total(), wanted) < 1e-10
    assert found.error < 1e-10
    assert found.values.shape == (len(found.names), 3)


def test_with_a_linear_head_a_term_counts_by_its_product_with_the_class_row():
    """target_c = Σ_k w_c·term_k + b_c, and the row and the bias are the network's own."""
    network = features(order=LINEAR[1])
    x = batch(network)
    terms = unravel(trace(network, x), x)
    head = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    seen = observed(network, x)
    found = terms.attribute(2)
    assert error(found.values, terms.values @ head.weight[2].detach()) < 1e-12
    assert error(found.constants, head.bias[2].detach().expand(3)) < 1e-12
    assert error(terms.values[1], seen["blocks.0.branch"][1]) < 1e-14


def test_a_head_with_norm_and_relu_is_frozen_by_hand():
    """Full pre-activation ends in norm, ReLU, linear: each contribution passes running scale and gate."""
    network = features(order=LINEAR[7])
    x = batch(network)
    terms = unravel(trace(network, x), x)
    norm, _, linear = (m for m in network.head.modules() if not list(m.children()))
    scale = (norm.weight * torch.rsqrt(norm.running_var + norm.eps)).detach()
    shift = (norm.bias - norm.running_mean * scale).detach()
    gate = (terms.total() * scale + shift > 0).to(F64)
    row = linear.weight[0].detach()
    found = terms.attribute(0)
    assert error(found.values, (terms.values * scale * gate * row).sum(-1)) < 1e-11
    assert error(found.constants, (shift * gate * row).sum(-1) + linear.bias[0].detach()) < 1e-11


def test_a_pair_picks_a_position_and_a_class():
    network = lively(Reader())
    x = normal(3, 5, 6)
    found = unravel(trace(network, x), x).attribute((2, 1))
    assert error(found.total(), network(x)[:, 2, 1].detach()) < 1e-10
    assert error(unravel(trace(network, x), x).attribute((-3, -3)).values, found.values) < 1e-14


def test_a_list_holds_a_target_for_every_example():
    network, x = lively(Reader()), normal(3, 5, 6)
    terms = unravel(trace(network, x), x)
    found, output = terms.attribute([(0, 1), (4, 2), (-1, 0)]), network(x).detach()
    assert error(found.total(), torch.stack([output[0, 0, 1], output[1, 4, 2], output[2, -1, 0]])) < 1e-10
    assert error(found.values[:, 1], terms.attribute((4, 2)).values[:, 1]) < 1e-14
    scores = normal(3, 4)
    assert torch.equal(scalar(scores, [2, 0, -1]), scalar(scores, torch.tensor([2, 0, -1])))


def test_a_loss_leaves_its_remainder_to_the_constants():
    """What the loss is not linear in: values − ⟨gradient, output⟩ joins the head's bias."""
    network = features(order=LINEAR[1])
    x = batch(network)
    output = network(x).detach().requires_grad_()
    loss = _loss(output)
    (gradient,) = torch.autograd.grad(loss.sum(), output)
    bias = [m for m in network.modules() if isinstance(m, nn.Linear)][-1].bias.detach()
    found = unravel(trace(network, x), x).attribute(_loss)
    remainder = (loss - (gradient * output).sum(1)).detach()
    assert error(found.constants, remainder + gradient @ bias) < 1e-11


def test_without_a_head_the_stream_is_the_output():
    network = lively(Chain(Residual(mlp(6)), Residual(mlp(6))))
    x = normal(3, 6)
    terms = unravel(trace(network, x), x)
    found = terms.attribute(4)
    assert error(found.values, terms.values[:, :, 4]) < 1e-14
    assert not found.constants.any()


def test_in_float32():
    network = images().float()
    x = batch(network).float()
    found = unravel(trace(network, x), x).attribute(0)
    assert error(found.total(), network(x)[:, 0].detach()) < 1e-4


@pytest.mark.parametrize(
    ("target", "shape", "message"),
    [
        (4, (3, 4), r"one int or a tensor \[3\] with values below 4; 4 came"),
        (torch.tensor([0, 1]), (3, 4), r"one int or a tensor \[3\] with values below 4; \[0, 1\] came"),
        (torch.tensor([0, 1, -5]), (3, 4), r"values below 4; \[0, 1, -5\] came"),
        (1, (3, 5, 4), r"a class index needs an output \[batch, classes\], and this one is \[3, 5, 4\]"),
        ((1, 1), (3, 4), r"a pair \(position, class\) needs an output .*and this one is \[3, 4\]"),
        ([0, 1], (3, 4), r"a list holds one for each of the 3 examples; it has 2"),
        ([0, 1, 4], (3, 4), r"values below 4; 4 came"),
        ((5, 1), (3, 5, 4), r"position 5 and class 1 must lie within 5 positions and 4 classes"),
        (lambda y: y.mean(), (3, 4), r"one number per example, a tensor \[3\]; it gave \[\] for an output \[3, 4\]"),
    ],
)
def test_a_target_that_does_not_fit_says_which_would(target, shape, message):
    with pytest.raises(ValueError, match=message):
        scalar(normal(*shape), target)


def test_a_target_that_is_constant_is_refused():
    network = features()
    x = batch(network)
    with pytest.raises(ValueError, match=r"a differentiable function of the output, and this one is constant"):
        attribute(trace(network, x), x, target=lambda y: torch.zeros(len(y)))


def test_the_check_sees_a_head_left_live(monkeypatch):
    """Leave the head's ReLU and norm as they are: the head at zero is not what the frozen head adds."""
    monkeypatch.setattr(_target_segment, "freeze", lambda graph, state, inputs, segments, seen: (graph, state))
    network = lively(Reader())
    x = normal(3, 5, 6)
    with pytest.raises(InexactError, match="attribute: the contributions must sum to the target to 1e-10; they depart"):
        unravel(trace(network, x), x).attribute((0, 1))

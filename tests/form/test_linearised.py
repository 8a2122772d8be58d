"""A form linearised at one input: the model's own autograd and output are the oracles."""

from functools import partial

import pytest
import torch

from networks import Chain, Residual, error, lively, mlp, normal
from unbraid.form import Linearised, explained, trace
from unbraid.graph import subgraph


def squared(output):
    return output.square().sum(1)


@pytest.fixture(scope="module")
def case():
    network = lively(Chain(torch.nn.LayerNorm(5), Residual(mlp(5)), torch.nn.GELU(), Residual(mlp(5))))
    x = normal(3, 5)
    return network, x, trace(network, x)


@pytest.mark.parametrize("target", [2, squared], ids=["class", "loss"])
def test_gradients_are_those_of_the_model(case, target):
    network, x, form = case
    leaf = x.clone().requires_grad_()
    output = network(leaf)
    wanted = output[:, 2] if target == 2 else squared(output)
    linear = Linearised.at(form, x, None, target)
    (source,) = linear.graph.sources
    assert error(linear.gradients[source], torch.autograd.grad(wanted.sum(), leaf)[0]) < 1e-10
    assert error(linear.values, wanted.detach()) < 1e-12
    assert linear.constants == []
    assert linear.examples.count == 3


@pytest.mark.parametrize("target", [2, squared], ids=["class", "loss"])
def test_frozen_it_is_affine_and_equals_the_model(case, target):
    """Target = ⟨gradient, source⟩ + constant per example; what the loss is not linear in is part of the constant."""
    network, x, form = case
    output = network(x).detach()
    wanted = output[:, 2] if target == 2 else squared(output)
    linear = Linearised.at(form, x, None, target, frozen=True)
    (source,) = linear.graph.sources
    along = linear.examples.dot(source, linear.gradients[source], x)
    assert error(along + linear.constant, wanted) < 1e-10
    if target is squared:
        assert error(linear.remainder, -wanted) < 1e-10  # Σ y² less ⟨2y, y⟩
        assert error(along + linear.constant - linear.remainder, wanted) > 1e-2


def test_it_may_begin_at_a_stream_inside(case):
    """What lies behind the first sum alone; its constant is what it gives with that stream at zero."""
    network, x, form = case
    begin = form.adds[0].output
    value = form.values(x, None, (begin,))[begin]
    part = subgraph(form.graph, (form.output,), given=(begin,))
    given = {**form.inputs(x), begin: value}
    linear = Linearised.of(form, part, given, partial(explained, form, target=1), frozen=True, begin=begin)
    along = linear.examples.dot(begin, linear.gradients[begin], value)
    assert error(along + linear.constant, network(x)[:, 1].detach()) < 1e-10
    assert linear.constant.abs().min() > 1e-6

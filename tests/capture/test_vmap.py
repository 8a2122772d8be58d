"""torch.vmap inside of a model: what it batches is found, cut and counted as if it were written with batches."""

import pytest
import torch
from torch import nn

from networks import error, lively, mlp, normal
from unbraid import gradient_spectrum, trace

X = normal(4, 6)


def per_row(net, x):
    return torch.vmap(lambda row: row + torch.tanh(net.w @ row))(x)


def of_a_module(net, x):
    return x + torch.vmap(net.g)(x)


def twice(net, x):
    return x + torch.vmap(lambda a: torch.vmap(lambda b: torch.tanh(net.w @ a * b))(x).mean(0))(x)


def mask(net, x):
    """As transformers makes masks from a function of two positions."""
    places = torch.arange(x.shape[0])
    later = torch.vmap(torch.vmap(lambda a, b: a >= b, (None, 0)), (0, None))(places, places)
    return x + later.to(x.dtype) @ net.g(x)


class Net(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.f, self.g, self.w = function, mlp(6), mlp(6), nn.Parameter(torch.ones(6, 6))

    def forward(self, x):
        return self.function(self, x + self.f(x))


@pytest.mark.parametrize("function", [per_row, of_a_module, twice, mask])
def test_what_is_batched_by_vmap_is_a_block(function):
    net = lively(Net(function))
    form = trace(net, X)
    assert form.tracer == "export"
    assert [(block.skip, len(block.branches)) for block in form.blocks] == [("identity", 1)] * 2
    assert form.blocks[1].where.startswith("test_vmap.py")
    assert error(form(X[:3]), net(X[:3])) < 1e-12
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x)[:, 0].sum(), x)
    assert error(gradient_spectrum(form, X, target=0).total(), gradient) < 1e-10

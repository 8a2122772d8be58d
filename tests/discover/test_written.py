"""Sums that are written into a part of a tensor, and sums that movements hide: the blocks are those of plain sums."""

import pytest
import torch
from torch import nn

from networks import Chain, Does, error, lively, mlp, normal
from unbraid import gradient_spectrum, trace, unravel
from unbraid.errors import NotResidualError

X = normal(3, 6)
IMAGE = normal(2, 4, 5, 5)


def copied(net, x):
    """A tensor to write into, and what it was: autograd forbids that a branch's own input is written."""
    y = net.stem(x)
    return y.clone(), y


def sliced(net, x):
    h, y = copied(net, x)
    h[..., :-1] = h[..., :-1] + net.f(y)[..., :-1]
    return h


def twice(net, x):
    """Two branches in turn, read before either is written."""
    h, y = copied(net, x)
    f, g = net.f(y), net.g(y)
    h[..., :-1] += f[..., :-1]
    h[..., :-1] += g[..., :-1]
    return h


def elsewhere(net, x):
    h, y = copied(net, x)
    f, g = net.f(y), net.g(y)
    h[..., :-1] += f[..., :-1]
    h[..., 1:] += 0.5 * g[..., 1:]
    return h


def selected(net, x):
    h, y = copied(net, x)
    h[:, 0] += net.f(y)[:, 0]
    return h


def indexed(net, x):
    h, y = copied(net, x)
    h[:, torch.tensor([0, 3])] += net.f(y)[:, :2]
    return h


def accumulated(net, x):
    h, y = copied(net, x)
    return h.index_put((torch.tensor([0, 2]),), net.f(y)[:2], accumulate=True)


def narrowed(net, x):
    """Read in one way, written in another."""
    h, y = copied(net, x)
    h[:, 3:] = y.chunk(2, -1)[1] + net.f(y)[:, :3]
    return h


def masked(net, x):
    h, y = copied(net, x)
    h[y > 0] += net.f(y)[y > 0]
    return h


def diagonal(net, x):
    h, y = copied(net, x)
    h[:, :3].diagonal().add_(net.f(y)[0, :3])
    return h


def flat(net, x):
    h, y = copied(net, x)
    f, g = net.f(y), net.g(y)
    h.view(-1).add_(f.reshape(-1))
    h.view(-1).add_(g.reshape(-1))
    return h


def unflat(net, x):
    """A view between two additions of one sum."""
    h = net.stem(x)
    return ((h + net.f(h)).view(-1) + net.g(h).view(-1)).view(h.shape)


def turned(net, x):
    h = net.stem(x)
    return (h + net.f(h)).unflatten(-1, (2, 3)).transpose(1, 2) + net.g(h).unflatten(-1, (2, 3)).transpose(1, 2)


def concatenated(net, x):
    h = net.stem(x)
    return torch.cat([part[None] for part in (net.f(h), h, net.g(h))]).sum(0)


def beside(net, x):
    h = net.stem(x)
    return 3 * torch.cat([h, net.f(h), net.g(h)], -1).view(-1, 3, 6).mean(1)


def stacked(net, x):
    h = net.stem(x)
    return torch.stack([h, net.f(h), net.g(h)], 1).transpose(0, 1).sum(0)


def where(net, x):
    h = net.stem(x)
    return torch.where(x > 0, h + net.f(h), h)


ONE = [sliced, selected, indexed, accumulated, narrowed, masked, diagonal, where]
TWO = [twice, elsewhere, flat, unflat, turned, concatenated, beside, stacked]


def network(function):
    block = Does(function, stem=nn.Linear(6, 6), f=mlp(6), g=mlp(6))
    return lively(Chain(block, Does(lambda net, x: net.head(x.flatten(1)), head=nn.Linear(6, 2))))


@pytest.mark.parametrize("function", [*ONE, *TWO], ids=lambda f: f.__name__)
def test_the_stream_is_the_whole_trunk(function):
    model = network(function)
    form = trace(model, X)
    (block,) = form.blocks
    assert (block.skip, len(block.branches), len(block.nested)) == ("identity", 1 if function in ONE else 2, 0)
    assert form.path_counts() == [1, len(block.branches)]
    assert not form.refusals
    with torch.no_grad():
        whole = model.blocks[0](X)
        assert error(form(X), model(X)) < 1e-12
    terms = unravel(form, X)
    assert error(terms.total().reshape(whole.shape), whole) < 1e-12
    leaf = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    assert error(gradient_spectrum(form, X, target=1).total(), gradient) < 1e-10


@pytest.mark.parametrize("function", ONE, ids=lambda f: f.__name__)
def test_without_the_block_nothing_is_written(function):
    model = network(function)
    form = trace(model, X)
    h = model.blocks[0].stem(X)
    assert error(form.without(0)(X), model.blocks[1](h)) < 1e-12


def coupling(net, x):
    h = net.stem(x)
    h[:, :3] += net.f(h[:, 3:])
    return h


def simultaneous(net, x):
    h, y = copied(net, x)
    h[:, :3] += net.f(y[:, 3:])
    h[:, 3:] += net.g(y[:, :3])
    return h


def beside_a_write(net, x):
    """b is read anew after a was written, and has nothing of it."""
    h = net.stem(x)
    a, b = h.chunk(2, -1)
    a.mul_(0.5)
    return torch.cat([torch.tanh(a + net.f(b)), b], -1)


def written_twice(net, x):
    h = net.stem(x)
    h[..., ::2].mul_(0.5).tanh_()
    a, b = h.chunk(2, -1)
    return torch.cat([torch.tanh(a + net.f(b)), b], -1)


@pytest.mark.parametrize("function", [coupling, simultaneous, beside_a_write, written_twice], ids=lambda f: f.__name__)
def test_parts_that_have_nothing_in_common_are_a_coupling(function):
    model = lively(Does(function, stem=nn.Linear(6, 6), f=mlp(3), g=mlp(3)))
    with pytest.raises(NotResidualError) as caught:
        trace(model, X)
    assert all("disjoint parts" in refusal.reason for refusal in caught.value.refusals)


def test_a_bias_that_the_trunk_adds_after_the_block_stays_without_the_block():
    model = lively(
        Does(
            lambda net, x: net.head(x + net.f(x) + net.bias.expand_as(x)),
            f=mlp(6),
            head=mlp(6),
            bias=nn.Parameter(torch.ones(6)),
        )
    )
    form = trace(model, X)
    assert error(form.without(0)(X), model.head(X + model.bias)) < 1e-12


def test_a_bias_that_the_branch_adds_goes_with_it():
    model = lively(
        Does(
            lambda net, x: net.head(x + (net.f(x) + net.bias)), f=mlp(6), head=mlp(6), bias=nn.Parameter(torch.ones(6))
        )
    )
    form = trace(model, X)
    assert error(form.without(0)(X), model.head(X)) < 1e-12

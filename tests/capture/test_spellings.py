"""One verdict whatever the spelling: blocks, counts and numbers of a graph that is written in other ways."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from marks import slow
from networks import Chain, Does, Residual, error, lively, mlp, normal
from real_models import real
from spellings import OF_MAPS, OF_SUMS, rewritten
from unbraid import gradient_spectrum, trace
from unbraid.capture._capture import capture
from unbraid.form._trace import assemble

X = normal(3, 4, 6)


def parallel(net, x):
    n = net.norm(x)
    return net.attn(n) + net.mlp(n) + x


def injected(net, x):
    """The sum of a block, of constants and of what is no branch."""
    h = net.stem(x)
    h = net.bias + h + net.f(h) + x.mean(-1, keepdim=True).expand(x.shape)
    return net.head(h)


def pooled(net, x):
    return x.mean(1) + net.f(x).mean(1)


def attention(net, x):
    pattern = torch.softmax(net.q(x) @ net.k(x).mT + net.bias, -1)
    return x + net.o(pattern @ net.v(x))


def adapted(net, x):
    """Low-rank adaptation of both layers of a branch: linear beside linear, which is no block."""
    h = torch.tanh(net.a(x) + 2 * net.down(x) @ net.up)
    return x + net.b(h) + 2 * net.down(h) @ net.up


def difference(net, x):
    x = x - net.f(x)
    return net.head(x - net.g(x))


def drawn_to(net, x):
    """x + (g(x) − x)/4, and g(x) alone: a mean of x and g(x), and no block."""
    x = x + (net.f(x) - x) / 4
    return torch.tanh(net.head(x)) + (net.g(x) - torch.tanh(net.head(x)))


def nested(net, x):
    y = net.g(x)
    return x + (y + net.f(y)) + net.h(y)


def matrix():
    return nn.Parameter(torch.ones(6, 6))


def vector():
    return nn.Parameter(torch.ones(6))


NETWORKS = {
    "a chain": lambda: Chain(Residual(mlp(6)), Residual(nn.Sequential(mlp(6), Residual(mlp(6)), nn.Linear(6, 6)))),
    "parallel": lambda: Does(parallel, norm=nn.LayerNorm(6), attn=mlp(6), mlp=mlp(6)),
    "injected": lambda: Does(injected, stem=mlp(6), f=mlp(6), head=mlp(6), bias=vector()),
    "pooled": lambda: Does(pooled, f=mlp(6)),
    "attention": lambda: Does(attention, **{n: nn.Linear(6, 6) for n in "qkvo"}, bias=nn.Parameter(torch.ones(4, 4))),
    "adapted": lambda: Does(adapted, a=nn.Linear(6, 6), b=nn.Linear(6, 6), down=nn.Linear(6, 6), up=matrix()),
    "difference": lambda: Does(difference, f=mlp(6), g=mlp(6), head=mlp(6)),
    "drawn to": lambda: Does(drawn_to, f=mlp(6), g=mlp(6), head=mlp(6)),
    "nested": lambda: Does(nested, f=mlp(6), g=mlp(6), h=mlp(6)),
}


@cache
def captured(name):
    """A network, its graph, and what its own spelling gives: the structure and the numbers."""
    model = lively(NETWORKS[name](), seed=3)
    form = trace(model, X)
    spectrum = gradient_spectrum(form, X, target=scalar)
    return model, capture(model, (X,), {}, free=False), structure(form), spectrum.gradients


def learned(model):
    return {name for name, _ in model.named_parameters(remove_duplicate=False)}


def structure(form):
    """All that a spelling must not change."""

    def of(block):
        return block.skip, len(block.branches), tuple(map(of, block.nested))

    return [*map(of, form.blocks)], form.path_counts()


def scalar(output):
    return output.flatten(1).sum(1)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rewrite", OF_SUMS + OF_MAPS, ids=lambda rewrite: rewrite.__name__)
def test_another_spelling_changes_nothing(name, rewrite):
    model, original, expected, gradients = captured(name)
    graph, places = rewritten(original.graph, rewrite)
    if not places:
        return
    form = assemble(replace(original, graph=graph), model, learned(model))
    assert structure(form) == expected
    assert error(form(X), model(X)) < 1e-12
    assert error(gradient_spectrum(form, X, target=scalar).gradients, gradients) < 1e-10


@pytest.mark.parametrize("rewrite", OF_SUMS + OF_MAPS, ids=lambda rewrite: rewrite.__name__)
def test_each_rewrite_finds_its_place(rewrite):
    """A rewrite that never fits would test nothing."""
    flat = lively(Residual(mlp(6)))
    graphs = [captured(name)[1].graph for name in NETWORKS] + [capture(flat, (X[0],), {}, free=False).graph]
    assert any(rewritten(graph, rewrite)[1] for graph in graphs)


@pytest.mark.parametrize("name", ["GPT2", slow("Gemma2"), "vit_tiny_patch16_224"])
@pytest.mark.parametrize("rewrite", OF_SUMS + OF_MAPS, ids=lambda rewrite: rewrite.__name__)
def test_other_spellings_of_known_models(name, rewrite):
    model, _, _, form, _ = real(name)
    original = known(name)
    graph, places = rewritten(original.graph, rewrite)
    assert places or rewrite in (OF_MAPS + OF_SUMS[-2:])
    assert structure(assemble(replace(original, graph=graph), model, learned(model))) == structure(form)


@cache
def known(name):
    model, args, kwargs, _, _ = real(name)
    return capture(model, args, kwargs, free=False)

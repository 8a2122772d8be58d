"""Sums, flattened: what is a block, and what is none, however it is bracketed, ordered and spelled."""

import pytest
import torch
from torch import nn

from networks import Does, error, lively, mlp, normal
from unbraid.errors import NotResidualError
from unbraid.form import trace

ROWS = normal(4, 6)
WORDS = normal(4, 5, 6)


def structure(block):
    return block.skip, len(block.branches), [structure(inner) for inner in block.nested]


def parts(**more):
    functions = {"a": nn.Linear(6, 6), "b": nn.Linear(6, 6), "c": nn.Linear(6, 6), "f": mlp(6), "g": mlp(6)}
    return functions | {"gain": nn.Parameter(torch.ones(6)), "low": nn.Parameter(torch.ones(6, 2))} | more


def network(function, **more):
    return lively(Does(function, **parts(**more)))


def over_a_branch(net, x):
    y = net.g(x)
    return x + (y + net.f(y))


def over_a_branch_rebracketed(net, x):
    y = net.g(x)
    return (net.f(y) + x) - (-y)


IDENTITY, PROJECTION = ("identity", 1, []), ("projection", 1, [])

# name: (function, x, the blocks)
BLOCKS = {
    "a projection in a sum, right": (
        lambda net, x: (torch.tanh(net.a(x)) + net.b(x)) + (net.f(x) + x), ROWS, [("identity", 3, [])]
    ),
    "a projection in a sum, left": (
        lambda net, x: (net.f(x) + x) + (torch.tanh(net.a(x)) + net.b(x)), ROWS, [("identity", 3, [])]
    ),
    "a projection in a sum, woven": (
        lambda net, x: torch.tanh(net.a(x)) + (x + (net.b(x) + net.f(x))), ROWS, [("identity", 3, [])]
    ),
    "two projections beside a branch": (lambda net, x: net.a(x) + net.b(x) + net.f(x), ROWS, [PROJECTION]),
    "two projections around a branch": (lambda net, x: net.a(x) + (net.f(x) + net.b(x)), ROWS, [PROJECTION]),
    "a minus a minus": (lambda net, x: x - (-net.f(x)), ROWS, [IDENTITY]),
    "all negative": (lambda net, x: -(-x - net.f(x)), ROWS, [IDENTITY]),
    "subtracted with alpha": (lambda net, x: torch.sub(x, net.f(x), alpha=-0.5), ROWS, [IDENTITY]),
    "subtract by its long name": (lambda net, x: torch.subtract(x, -net.f(x)), ROWS, [IDENTITY]),
    "N-BEATS": (lambda net, x: x - net.f(x), ROWS, [IDENTITY]),
    "Python's sum": (lambda net, x: sum([x, net.a(x)]), ROWS, [IDENTITY]),
    "a stack": (lambda net, x: torch.stack([net.f(x), x, net.g(x)]).sum(0), ROWS, [("identity", 2, [])]),
    "a stack in the last dimension": (lambda net, x: torch.stack([x, net.f(x)], -1).sum(-1), ROWS, [IDENTITY]),
    "the mean of a stack": (lambda net, x: torch.stack([x, net.f(x)]).mean(dim=0), ROWS, [IDENTITY]),
    "half of both": (lambda net, x: x / 2 + net.f(x) * 0.5, ROWS, [IDENTITY]),
    "half of the sum": (lambda net, x: (x + net.f(x)) / 2, ROWS, [IDENTITY]),
    "lerp": (lambda net, x: torch.lerp(x, net.f(x), 0.3), ROWS, [PROJECTION]),
    "lerp, written out": (lambda net, x: x + 0.3 * (net.f(x) - x), ROWS, [PROJECTION]),
    "lerp, to the middle": (lambda net, x: x + 0.5 * (net.f(x) - x), ROWS, [IDENTITY]),
    "twice": (lambda net, x: x + net.f(x) + x, ROWS, [PROJECTION]),
    "a gain of the skip": (lambda net, x: net.gain * x + (x + net.f(x)), ROWS, [PROJECTION]),
    "a bias before": (lambda net, x: (x + net.gain) + net.f(x), ROWS, [IDENTITY]),
    "a bias behind": (lambda net, x: (x + net.f(x)) + net.gain, ROWS, [IDENTITY]),
    "a number behind": (lambda net, x: x + net.f(x) + 1, ROWS, [IDENTITY]),
    "addmm": (lambda net, x: torch.addmm(x, torch.tanh(x @ net.low), net.low.T), ROWS, [IDENTITY]),
    "addmm with factors": (
        lambda net, x: torch.addmm(x, torch.tanh(x @ net.low), net.low.T, beta=0.5, alpha=2), ROWS, [PROJECTION]
    ),
    "baddbmm": (lambda net, x: torch.baddbmm(x, torch.softmax(x @ x.mT, -1), net.a(x)), WORDS, [IDENTITY]),
    "index_add": (
        lambda net, x: x.index_add(1, torch.tensor([4, 0, 2, 2, 1, 3]), net.f(x)), ROWS, [IDENTITY]
    ),
    "scatter_add": (
        lambda net, x: x.scatter_add(1, torch.tensor([[4, 0, 2, 2, 1, 3]]).expand(x.shape), net.f(x)), ROWS, [IDENTITY]
    ),
    "over a branch": (over_a_branch, ROWS, [("identity", 1, [IDENTITY])]),
    "over a branch, woven": (over_a_branch_rebracketed, ROWS, [("identity", 1, [IDENTITY])]),
    "parts that overlap": (lambda net, x: x[:, :3] + net.f(x[:, [1, 3, 5, 0, 1, 2]])[:, :3], ROWS, [PROJECTION]),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
def test_these_are_residual(name):
    function, x, expected = BLOCKS[name]
    model = network(function)
    form = trace(model, x)
    assert [structure(block) for block in form.blocks] == expected
    assert form.error < 1e-12
    other = normal(3, *x.shape[1:], seed=1)
    assert error(form(other), model(other)) < 1e-12


def straight_through(net, x):
    z = net.a(x)
    return net.f(z + (net.g(z) - z).detach())


def straight_through_kept(net, x):
    """The difference is read by a loss, too."""
    z = net.a(x)
    d = net.g(z) - z
    return net.f(z + d.detach()) + d.square().mean()


def hard_choice(net, x):
    return net.b(nn.functional.gumbel_softmax(net.a(x), hard=True))


def variational(net, x):
    h = torch.tanh(net.a(x))
    deviation = torch.exp(0.5 * net.c(h))
    return net.f(net.b(h) + torch.randn_like(deviation) * deviation)


def variational_by_distribution(net, x):
    h = torch.tanh(net.a(x))
    return net.f(torch.distributions.Normal(net.b(h), torch.exp(net.c(h)), validate_args=False).rsample())


def noisy_scores(net, x):
    return torch.softmax(net.a(x) + nn.functional.softplus(net.b(x)) * (2 * torch.rand_like(x) - 1), -1)


def sines(net, x):
    b = torch.zeros_like(x[:, 0])
    for i in range(4):
        b = torch.sin((b + x[:, i] + 1) * 2)
    return b


def sines_twice(net, x):
    b = x[:, 0]
    for i in (1, 2, 3, 1, 2, 3):
        b = torch.sin((b + x.narrow(1, i, 1)[:, 0] + 1) * 2)
    return b


def mean_of_neighbours(net, x):
    source, to = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0, 2])
    total = x.new_zeros(x.shape).scatter_add_(0, to[:, None].expand(4, x.shape[1]), x[source])
    count = x.new_zeros(x.shape[0]).scatter_add_(0, to, x.new_ones(4)).clamp(min=1)
    return torch.relu(net.a(total / count[:, None].expand_as(total)) + net.b(x))


def sum_of_neighbours(net, x):
    total = torch.zeros_like(x).index_add(0, torch.tensor([1, 2, 0, 2]), x[torch.tensor([0, 1, 2, 0])])
    return torch.relu(net.a(total) + net.b(x))


CANCELS = "the copies of the tensor that both operands carry cancel"
AFFINE = "both operands are affine"
APART = "disjoint parts of the tensor"
POINTWISE = "a pointwise function of the first, without parameters"
NOISE = "noise, drawn with mean zero"
NEGATIVE = "a negative multiple is no skip"
MATRIX = "is subtracted, and has no matrix of parameters"
COPY = "the first, moved or scaled"

# name: (function, x, a reason that is given)
NONE = {
    "g(x) in the end": (lambda net, x: x + (net.f(x) - x), ROWS, CANCELS),
    "g(x) in the end, woven": (lambda net, x: (net.f(x) + 2 * x) - (x + x), ROWS, CANCELS),
    "straight through": (straight_through, ROWS, CANCELS),
    "straight through, kept": (straight_through_kept, ROWS, CANCELS),
    "a hard choice": (hard_choice, ROWS, CANCELS),
    "noise on a mean": (variational, ROWS, NOISE),
    "noise of a distribution": (variational_by_distribution, ROWS, NOISE),
    "noise on scores": (noisy_scores, ROWS, NOISE),
    "sines": (sines, WORDS, POINTWISE),
    "sines of what was read before": (sines_twice, WORDS, POINTWISE),
    "f - x": (lambda net, x: net.f(x) - x, ROWS, NEGATIVE),
    "pooling less its input": (
        lambda net, x: nn.functional.avg_pool1d(x, 3, 1, 1) - x, WORDS, NEGATIVE
    ),
    "less the maximum": (lambda net, x: x - x.amax(-1, keepdim=True).expand(x.shape), ROWS, MATRIX),
    "less the mean": (lambda net, x: x + (-x.mean(-1, keepdim=True).expand(-1, 6)), ROWS, MATRIX),
    "a gain": (lambda net, x: x + net.gain * x, ROWS, COPY),
    "a norm": (lambda net, x: x + net.norm(x), ROWS, COPY),
    "one position and their sum": (lambda net, x: torch.relu(x[:, 0] + x.sum(1) / 5), WORDS, AFFINE),
    "one position and their mean": (lambda net, x: torch.relu(x[:, 0] + x.mean(1)), WORDS, AFFINE),
    "two linear maps": (lambda net, x: torch.relu(net.a(x) + x @ net.low @ net.low.T), ROWS, AFFINE),
    "linear and einsum": (
        lambda net, x: torch.relu(net.a(x) + torch.einsum("bi,ij->bj", x, net.low @ net.low.T)), ROWS, AFFINE
    ),
    "LoRA on addmm": (
        lambda net, x: torch.relu(torch.addmm(net.gain, x, net.a.weight) + 2 * (x @ net.low) @ net.low.T), ROWS, AFFINE
    ),
    "neighbours, mean": (mean_of_neighbours, ROWS, AFFINE),
    "neighbours, sum": (sum_of_neighbours, ROWS, AFFINE),
    "select and slice": (lambda net, x: x[:, 0] + net.f(x[:, 1:]).sum(1), WORDS, APART),
    "narrow and split": (lambda net, x: x.narrow(1, 0, 2) + net.f(x.split(2, 1)[1]), WORDS, APART),
    "chunk and step": (lambda net, x: x[:, 0:4:2] + net.f(x[:, 1::2]), WORDS, APART),
    "unbind and view": (lambda net, x: x.view(-1, 5, 2, 3).unbind(2)[0].sum(1) + net.g(x[:, 0, 3:].repeat(1, 2))[:, :3],
                        WORDS, APART),
    "indices": (lambda net, x: x[:, [0, 2]] + net.f(x[:, [3, 1]]), WORDS, APART),
    "an index that is counted": (lambda net, x: x[:, torch.arange(0, 4, 2)] + net.f(x[:, 1:4:2]), WORDS, APART),
}  # fmt: skip


@pytest.mark.parametrize("name", NONE)
def test_these_are_not(name):
    function, x, reason = NONE[name]
    with pytest.raises(NotResidualError) as caught:
        trace(network(function, norm=nn.LayerNorm(6)), x)
    assert any(reason in refusal.reason for refusal in caught.value.refusals)


@pytest.mark.parametrize(
    "size_of",
    [
        lambda e, x: e.expand_as(x),
        lambda e, x: e.expand(6).type_as(x).expand_as(x),
        lambda e, x: e.expand(x.numel()).view_as(x) if x.ndim == 1 else e.expand(*x.shape),
        lambda e, x: e * torch.ones_like(x),
        lambda e, x: torch.zeros_like(x) + e,
        lambda e, x: e + torch.full_like(x, 2.0),
        lambda e, x: x.new_ones(x.shape) * e,
        lambda e, x: torch.rand_like(x) * e,
        lambda e, x: e.expand(x.shape[0], -1).reshape_as(x),
        lambda e, x: torch.broadcast_tensors(e, x)[0],
        lambda e, x: torch.empty_like(x).fill_(2.0) * e,
        lambda e, x: torch.randn_like(x) * e,
        lambda e, x: x.new_full((6,), 3.0) + e.to(x),
        lambda e, x: e + torch.empty_like(x).normal_() + x.new_empty(x.shape).bernoulli_(0.5),
    ],
)
def test_of_some_tensors_the_sizes_alone_are_read(size_of):
    """Nothing is computed from x: an embedding that is added to it is no branch."""
    with pytest.raises(NotResidualError) as caught:
        trace(network(lambda net, x: torch.tanh(x + size_of(net.gain, x))), ROWS)
    assert caught.value.refusals == ()


class TwoTrunks(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.f, self.g, self.order = mlp(6), mlp(6), order

    def forward(self, x, y):
        return self.order(x, self.f(x), self.g(y))


@pytest.mark.parametrize(
    "order",
    [
        lambda x, f, g: (x + f) + g,
        lambda x, f, g: x + (f + g),
        lambda x, f, g: (g + x) + f,
        lambda x, f, g: f - (-x - g),
    ],
)
def test_what_is_computed_from_something_else_is_no_branch(order):
    model = lively(TwoTrunks(order))
    x, y = ROWS, normal(4, 6, seed=1)
    form = trace(model, (x, y))
    assert [structure(block) for block in form.blocks] == [IDENTITY]
    assert len(form.refusals) == 1
    assert error(form(x, y), model(x, y)) < 1e-12


class Deeper(nn.Module):
    """Sums of many operands; a chain of a thousand is no deep recursion."""

    def __init__(self, count):
        super().__init__()
        self.f, self.count = mlp(6), count

    def forward(self, x):
        for _ in range(self.count):
            x = x + self.f(x)
        total = x
        for _ in range(300):
            total = total + 0.01
        return total + self.f(x)


def test_long_sums():
    form = trace(lively(Deeper(2)), ROWS)
    assert [structure(block) for block in form.blocks] == [IDENTITY] * 3


def test_masks_that_are_drawn_are_no_noise():
    """Stochastic depth leaves the branch what it is."""

    def dropped(net, x):
        keep = torch.floor(0.8 + torch.rand(x.shape[0], 1, dtype=x.dtype))
        return x + net.f(x) * keep / 0.8

    def dropped_in_place(net, x):
        return x + net.f(x) * x.new_empty(x.shape[0], 1).bernoulli_(0.8)

    for function in (dropped, dropped_in_place):
        torch.manual_seed(0)
        form = trace(network(function), ROWS)
        assert [structure(block) for block in form.blocks] == [IDENTITY]

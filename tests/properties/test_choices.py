"""Every addition of data is a block or has a reason, whatever lies between: integers, sizes, masks, detached tensors.

Models are drawn as lists of stages, of which it is known what they add. It is also read off the running model: a
dispatch mode sees every addition, and an operand depends on the input if it changes with it.
"""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import unbraid
from networks import error, lively, normal
from unbraid.errors import NotResidualError

WIDTH, ROWS = 5, 4
EXACT = 1e-10


class Ledger(TorchDispatchMode):
    """The operands of every addition of two floating-point tensors that a run executes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.operands: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.add.Tensor and all(isinstance(a, Tensor) and a.is_floating_point() for a in args[:2]):
            self.operands.append((args[0].detach().clone(), args[1].detach().clone()))
        return func(*args, **(kwargs or {}))


def additions_of_data(model, inputs):
    """How many of the additions have two operands that change with the input."""
    runs = []
    for x in inputs:
        with torch.no_grad(), Ledger() as ledger:
            model(x)
        runs.append(ledger.operands)
    first, *others = runs
    assert all(len(run) == len(first) for run in others)
    return sum(
        all(any(not torch.equal(run[place][side], first[place][side]) for run in others) for side in (0, 1))
        for place in range(len(first))
    )


def residual(net, h):
    return h + torch.tanh(net.f(h))


def looked_up(net, h):
    return h + net.table(net.f(h).argmax(-1))


def routed(net, h):
    shares, chosen = net.f(h).softmax(-1).topk(2, -1)
    routes = (functional.one_hot(chosen, WIDTH).to(h.dtype) * shares[..., None]).sum(1)
    return h + routes @ net.g.weight


def masked(net, h):
    rows = h[:, 0].abs() > 1e-12
    return h + torch.relu(net.f(h))[rows]


def picked_up(net, h):
    return h + torch.relu(net.f(h))[(h[:, 0].abs() > 1e-12).nonzero()[:, 0]]


def positions(net, h):
    return h + net.table(torch.arange(h.shape[0]) % WIDTH)


def spread(net, h):
    return h + torch.tanh(net.f(h)).mean(-1, keepdim=True)


def expanded(net, h):
    return h + net.table.weight[0].expand_as(h)


# Stages without an addition of their own.
def bytes_and_back(net, h):
    return (255 * h.sigmoid()).byte().to(h.dtype) / 255


def code_book(net, h):
    return net.table(torch.cdist(h, net.table.weight).argmin(-1)) * 1.5


def one_hot(net, h):
    return functional.one_hot(h.argmax(-1), WIDTH).to(h.dtype) @ net.f.weight


def detached(net, h):
    return h.detach()


def without_gradients(net, h):
    with torch.no_grad():
        return torch.tanh(net.f(h))


def sized(net, h):
    return h * torch.ones_like(h) - torch.zeros_like(h)


BRANCHING = (residual, looked_up, routed, masked, picked_up, spread)
ADDING = (*BRANCHING, positions, expanded)
PASSING = (bytes_and_back, code_book, one_hot, detached, without_gradients, sized)


class Stage(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.f, self.g = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.table = nn.Embedding(WIDTH, WIDTH)

    def forward(self, h):
        return self.function(self, h)


class Stages(nn.Module):
    def __init__(self, functions):
        super().__init__()
        self.stages = nn.ModuleList(Stage(function) for function in functions)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


def own_gradient(model, x):
    leaf = x.clone().requires_grad_()
    output = model(leaf)[:, 1].sum()
    if not output.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(output, leaf, materialize_grads=True)[0]


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(ADDING + PASSING), min_size=2, max_size=5), st.integers(0, 99))
def test_every_addition_of_data_is_a_block_or_has_a_reason(functions, seed):
    model = lively(Stages(functions), seed=seed)
    x = normal(ROWS, WIDTH, seed=seed)
    wanted = sum(function in BRANCHING for function in functions)
    assert additions_of_data(model, [normal(ROWS, WIDTH, seed=seed + k) for k in range(8)]) <= wanted
    if not any(function in BRANCHING for function in functions):
        with pytest.raises(NotResidualError) as refused:
            unbraid.trace(model, x)
        assert len(refused.value.refusals) == wanted
        return
    form = unbraid.trace(model, x)
    assert sum(len(block.branches) for block in form.all_blocks) + len(form.refusals) == wanted

    spectrum = unbraid.gradient_spectrum(form, x, target=1)
    assert error(spectrum.total(), own_gradient(model, x)) < EXACT
    every = unbraid.all_paths(form, x, target=1)
    assert len(every) == sum(form.path_counts())
    for total in (every.values.sum(0) + every.constants, unbraid.value_spectrum(form, x, target=1).total()):
        assert error(total, model(x)[:, 1]) < EXACT
    assert unbraid.unravel(form, x).error < EXACT

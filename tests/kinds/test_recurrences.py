"""States that are carried over positions are no blocks, whatever the length; a layer that runs again is one each."""

import pytest
import torch
from torch import nn, sigmoid

from kinds.known import CHECKS, WIDTH, Known
from kinds.polynomials import binomials
from kinds.told import Told
from networks import Residual, error, lively, mlp, normal
from unbraid import trace

LENGTHS = 3, 6


def linear(outputs=WIDTH):
    return nn.Linear(WIDTH, outputs)


def lstm(net, x):
    h = c = torch.zeros_like(x[:, 0])
    outputs = []
    for t in range(x.shape[1]):
        i, f, o, g = (net.w(x[:, t]) + net.u(h)).chunk(4, -1)
        c = sigmoid(f) * c + sigmoid(i) * torch.tanh(g)
        h = sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, 1)


def gru(net, x):
    h = torch.zeros_like(x[:, 0])
    outputs = []
    for t in range(x.shape[1]):
        z = sigmoid(net.z(x[:, t]))
        h = (1 - z) * h + z * torch.tanh(net.v(x[:, t] * h))
        outputs.append(h)
    return torch.stack(outputs, 1)


def gru_cell(net, x):
    h = torch.zeros_like(x[:, 0])
    outputs = []
    for step in x.unbind(1):
        h = net.cell(step, h)
        outputs.append(h)
    return torch.stack(outputs, 1)


def scan(net, x):
    """A selective scan: the decay and what is written come from each position."""
    decay, new = sigmoid(net.z(x)), torch.tanh(net.v(x))
    state = torch.zeros_like(x[:, 0])
    outputs = []
    for t in range(x.shape[1]):
        state = decay[:, t] * state + new[:, t]
        outputs.append(state)
    return torch.stack(outputs, 1)


def scan_of_slices(net, x):
    """The states are written into a tensor, and read from it."""
    decay, new = sigmoid(net.z(x)), torch.tanh(net.v(x))
    states = new.clone()
    for t in range(1, x.shape[1]):
        states[:, t] = decay[:, t] * states[:, t - 1].clone() + new[:, t]
    return states


def delta_rule(net, x):
    """S ← S + β (v − S k) kᵀ."""
    k, v, beta = torch.tanh(net.z(x)), net.v(x), sigmoid(net.w(x)[..., :1])
    state = x.new_zeros(x.shape[0], WIDTH, WIDTH)
    outputs = []
    for t in range(x.shape[1]):
        key = k[:, t, :, None]
        wrong = v[:, t, :, None] - state @ key
        state = state + beta[:, t, :, None] * (wrong @ key.mT)
        outputs.append((state @ key)[..., 0])
    return torch.stack(outputs, 1)


STATES = {
    "LSTM": (lstm, "c = sigmoid(f) * c"),
    "GRU": (gru, "h = (1 - z) * h"),
    "a cell": (gru_cell, None),
    "scan": (scan, "state = decay[:, t] * state"),
    "scan of slices": (scan_of_slices, "states[:, t] = decay"),
    "delta rule": (delta_rule, "state = state + beta"),
}


def recurrent(name):
    """Two residual blocks, of which the first one's branch carries a state over positions."""
    function, _ = STATES[name]

    def story(net, mark, x):
        x = x + mark("mixer", net.out(function(net, x)))
        x = x + mark("mlp", net.mlp(x))
        return net.head(x.mean(1))

    parts = {"w": linear(4 * WIDTH), "u": linear(4 * WIDTH), "z": linear(), "v": linear(), "out": linear()}
    cell = {"cell": nn.GRUCell(WIDTH, WIDTH)} if name == "a cell" else {}
    return Told(story, **parts, **cell, mlp=mlp(WIDTH), head=linear(3))


def state_case(name, length):
    _, line = STATES[name]
    refused = () if line is None else (line,)
    words = normal(2, length, WIDTH, seed=1)
    return Known(lambda: recurrent(name), "mixer mlp", binomials(2), inputs=(words,), refused=refused)


CASES = {(name, length): state_case(name, length) for name in STATES for length in LENGTHS}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", STATES)
def test_a_recurrence_is_no_block(name, length, check):
    check(CASES[name, length])


@pytest.mark.parametrize("name", STATES)
def test_the_structure_does_not_depend_on_the_length(name):
    """The same blocks, and the same refusals: one for each line, not one for each position."""
    short, long = (CASES[name, length].form for length in LENGTHS)
    assert [(b.name, b.skip, b.join) for b in short.all_blocks] == [(b.name, b.skip, b.join) for b in long.all_blocks]
    assert [(r.where, r.reason) for r in short.refusals] == [(r.where, r.reason) for r in long.refusals]
    assert len({r.where for r in short.refusals}) == len(short.refusals)


# --- depth ------------------------------------------------------------------------------------------------------------


class Looped(nn.Module):
    """One layer that runs several times: universal transformers, and depth-recurrent language models."""

    def __init__(self, layer, times, again=False):
        super().__init__()
        self.embed, self.layer, self.head = linear(), layer, linear(3)
        self.times, self.again = times, again

    def forward(self, x):
        h = e = self.embed(x)
        for _ in range(self.times):
            h = self.layer(h + e) if self.again else self.layer(h)
        return self.head(h)


@pytest.mark.parametrize("times", [2, 5])
def test_a_layer_that_runs_again_is_a_block_each_time(times):
    model, x = lively(Looped(Residual(mlp(WIDTH)), times)), normal(2, WIDTH, seed=1)
    form = trace(model, x)
    assert [b.name for b in form.all_blocks] == [f"layer@{k}" for k in range(1, times + 1)]
    assert {(b.skip, b.join) for b in form.all_blocks} == {("identity", "sum")}
    assert form.path_counts() == binomials(times)
    assert form.refusals == ()
    assert error(form(x), model(x)) <= 1e-12


def test_a_branch_that_runs_again_is_a_block_each_time():
    def story(net, mark, x):
        for k in range(3):
            x = x + mark(f"f{k}", net.f(x))
        return net.head(x)

    case = Known(lambda: Told(story, f=mlp(WIDTH), head=linear(3)), "f0 f1 f2", binomials(3))
    assert [b.name for b in case.form.blocks] == ["f@1", "f@2", "f@3"]
    for check in CHECKS:
        check(case)


def test_a_layer_that_is_given_the_input_again():
    """h ← layer(h + e): the sum of the stream and its embedding is the trunk at another depth."""
    model, x = lively(Looped(Residual(mlp(WIDTH)), 3, again=True)), normal(2, WIDTH, seed=1)
    form = trace(model, x)
    assert [(b.name, b.skip) for b in form.all_blocks] == [(f"layer@{k}", "identity") for k in (1, 2, 3)]
    # e + e is 2 e; then (1 + t), and twice more the stream and e, and (1 + t).
    assert form.path_counts() == [3, 6, 4, 1]
    assert form.refusals
    assert error(form(x), model(x)) <= 1e-12

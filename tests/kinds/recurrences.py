"""States that are carried over positions: what is written out of an LSTM, a scan, a delta rule."""

import torch
from torch import nn, sigmoid

from kinds.known import WIDTH, Known
from kinds.told import Told
from kinds.trails import binomials
from networks import mlp, normal

LENGTHS = 4, 6


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


def delta_rule_in_a_chunk(net, x):
    """The same for all positions of a chunk, (I + tril(β k kᵀ))⁻¹ v: the inverse is written row by row."""
    k, v, beta = torch.tanh(net.z(x)), net.v(x), sigmoid(net.w(x)[..., :1])
    inverse = -(beta * (k @ k.mT)).tril(-1)
    for t in range(1, x.shape[1]):
        row, above = inverse[..., t, :t].clone(), inverse[..., :t, :t].clone()
        inverse[..., t, :t] = row + (row[..., None] * above).sum(-2)
    return (inverse + torch.eye(x.shape[1], dtype=x.dtype)) @ (beta * v)


STATES = {
    "LSTM": (lstm, "c = sigmoid(f) * c"),
    "GRU": (gru, "h = (1 - z) * h"),
    "a cell": (gru_cell, None),
    "scan": (scan, "state = decay[:, t] * state"),
    "scan of slices": (scan_of_slices, "states[:, t] = decay"),
    "delta rule": (delta_rule, "state = state + beta"),
    "delta rule in a chunk": (delta_rule_in_a_chunk, "inverse[..., t, :t] = row +"),
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

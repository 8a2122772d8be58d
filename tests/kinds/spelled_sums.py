"""Sums that are spelled as something else, and differences: known answers."""

import torch
from torch import nn

from kinds.known import ROWS, WIDTH, WORDS, Known
from kinds.told import Told
from kinds.trails import binomials, chain, lengths, read
from networks import mlp, normal

LAYERS = 3
FS = "f0 f1 f2"
ORDER = torch.tensor([2, 0, 3, 1])
PLACES = torch.tensor([2, 0])
MASK = torch.tensor([True, False, True, True])


def network(story, reference=None, **parts):
    modules = {"f": nn.ModuleList(mlp(WIDTH) for _ in range(LAYERS)), "head": nn.Linear(WIDTH, 3)}
    return lambda: Told(story, reference, **{**modules, **parts})


def layers(join):
    """A story of several layers, each of which puts x and f(x) together."""

    def story(net, mark, x):
        for k in range(LAYERS):
            x = join(x, net.f[k](x))
        return net.head(x if x.ndim == 2 else x.mean(1))

    return story


def reference(branch, sign=1):
    """x ± branch(f(x)), with the branch marked."""

    def story(net, mark, x):
        for k in range(LAYERS):
            x = x + mark(f"f{k}", sign * branch(net.f[k](x)))
        return net.head(x if x.ndim == 2 else x.mean(1))

    return story


def added(branch=lambda f: f, sign=1, inputs=ROWS, skips="identity"):
    def case(join):
        return Known(
            network(layers(join), reference(branch, sign)), FS, binomials(LAYERS), inputs=(inputs,), skips=skips
        )

    return case


plain, words = added(), added(inputs=WORDS)
minus = added(sign=-1)
TURN = normal(WIDTH, WIDTH, seed=3)
MIX = normal(3, 3, seed=4)


def scattered(f):
    return f[:, ORDER.argsort()]


def placed(f):
    return torch.zeros_like(f).index_copy(1, PLACES, f[:, :2])


def in_a_stack(x, f):
    return torch.stack([x, f]).sum(0)


def in_a_stack_at_the_end(x, f):
    return torch.stack([f, x], -1).mean(-1) * 2


def in_a_concatenation(x, f):
    return torch.cat([x[None], f[None]]).sum(0)


SUMS = {
    "addmm": added(lambda f: f @ TURN)(lambda x, f: torch.addmm(x, f, TURN)),
    "baddbmm": added(lambda f: MIX @ f, inputs=WORDS)(lambda x, f: torch.baddbmm(x, MIX.expand(x.shape[0], 3, 3), f)),
    "addcmul": plain(lambda x, f: torch.addcmul(x, f, torch.full_like(f, 2.0), value=0.5)),
    "addcdiv": plain(lambda x, f: torch.addcdiv(x, f, torch.ones_like(f))),
    "lerp": plain(lambda x, f: torch.lerp(2 * x, 2 * f, 0.5)),
    "index_add": added(scattered)(lambda x, f: x.index_add(1, ORDER, f)),
    "index_add, some": added(placed)(lambda x, f: x.index_add(1, PLACES, f[:, :2])),
    "index_put": added(placed)(
        lambda x, f: x.index_put((torch.arange(x.shape[0])[:, None], PLACES), f[:, :2], accumulate=True)
    ),
    "scatter_add": added(scattered)(lambda x, f: x.scatter_add(1, ORDER.expand(x.shape[0], -1), f)),
    "slice_scatter": added(lambda f: torch.nn.functional.pad(f[:, :2], (0, 2)))(
        lambda x, f: torch.slice_scatter(x, x[:, :2] + f[:, :2], 1, 0, 2)
    ),
    "where": added(lambda f: torch.where(MASK, f, 0))(lambda x, f: torch.where(MASK, x + f, x)),
    "stack and sum": plain(in_a_stack),
    "stack and mean": plain(in_a_stack_at_the_end),
    "concatenate and sum": plain(in_a_concatenation),
    "stack and sum, words": words(in_a_stack),
    "sub": minus(lambda x, f: x - f),
    "sub, alpha": added(sign=-0.5)(lambda x, f: torch.sub(x, f, alpha=0.5)),
    "rsub": minus(lambda x, f: torch.rsub(f, x)),
    "in place": minus(lambda x, f: x.clone().sub_(f)),
    "minus of minus": minus(lambda x, f: -(f - x)),
    "minus minus": plain(lambda x, f: x - (-f)),
}


def nbeats(net, mark, x):
    """Each layer takes its backcast off the input, and adds its forecast to the others'; the last one is unread."""
    forecast = x.new_zeros(x.shape[0], 3)
    for k in range(LAYERS):
        backcast = net.f[k](x)
        forecast = forecast + net.fore[k](x)
        x = x - mark(f"f{k}", backcast)
    return forecast


def nbeats_that_is_read(net, mark, x):
    """The same without the last backcast."""
    forecast = net.fore[0](x)
    for k in range(1, LAYERS):
        x = x - mark(f"f{k - 1}", net.f[k - 1](x))
        forecast = forecast + net.fore[k](x)
    return forecast


def nbeats_of_shared_layers(net, mark, x):
    """The paper's own: backcast and forecast are two linear maps of one θ."""
    forecast = x.new_zeros(x.shape[0], 3)
    for k in range(LAYERS):
        theta = torch.tanh(net.f[k](x))
        forecast = forecast + net.fore[k](theta)
        x = x - net.back[k](theta)
    return forecast


def differences(net, mark, x):
    """The backcasts alone."""
    for k in range(LAYERS):
        x = x - mark(f"f{k}", net.f[k](x))
    return net.head(x)


FORECASTS = nn.ModuleList(mlp(WIDTH, 5, 3) for _ in range(LAYERS))
OTHERS = {
    "N-BEATS": Known(
        network(nbeats, nbeats_that_is_read, fore=FORECASTS),
        "f0 f1",
        lengths(read(*map(chain, ("", "f0", "f0 f1")))),
        straight=False,
        refused=("forecast = forecast + net.fore[k](x)",),
    ),
    "differences": Known(network(differences), FS, binomials(LAYERS)),
}

CASES = {**SUMS, **OTHERS}


def shared():
    """N-BEATS with one θ for both."""
    parts = {
        "back": nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)),
        "fore": nn.ModuleList(nn.Linear(WIDTH, 3) for _ in range(LAYERS)),
    }
    return network(nbeats_of_shared_layers, **parts)()

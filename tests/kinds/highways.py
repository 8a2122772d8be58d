"""A stretch of the highway, x + t·(f − x), in many spellings: it is (1 − t)·x + t·f in each."""

import torch
from torch import sigmoid

from kinds.gates import FS, LAYERS, network
from kinds.known import Known
from kinds.trails import binomials


def layers(join):
    """A story of several layers, each of which puts x, f(x) and σ(W x) together."""

    def story(net, mark, x):
        for k in range(LAYERS):
            x = join(x, net.f[k](x), sigmoid(net.t[k](x)))
        return net.head(x)

    return story


def highway(net, mark, x):
    for k in range(LAYERS):
        t = sigmoid(net.t[k](x))
        x = mark(f"f{k}", t * net.f[k](x)) + mark.skip(f"f{k}", (1 - mark.gate(f"f{k}", t)) * x)
    return net.head(x)


def in_place(x, f, t):
    h = (1 - t) * x
    h += t * f
    return h


def of_methods(x, f, t):
    return x.clone().mul_(1 - t).add_(t.mul(f))


def complemented(x, f, t):
    c = 1 - t
    return f + c * (x - f)


def stacked(x, f, t):
    return torch.stack([(1 - t) * x, t * f]).sum(0)


def in_pairs(contract, dim=0):
    """Gates stacked beside what they multiply."""
    return lambda x, f, t: contract(torch.stack([x, f], dim), torch.stack([1 - t, t], dim))


def written_in_turn(x, f, t):
    y = torch.zeros(2, *x.shape, dtype=x.dtype)
    y[0] = (1 - t) * x
    y[1] = t * f
    return y.sum(0)


SPELLINGS = {
    "x + t(f - x)": lambda x, f, t: x + t * (f - x),
    "(f - x)t + x": lambda x, f, t: (f - x) * t + x,
    "x - t(x - f)": lambda x, f, t: x - t * (x - f),
    "x - tx + tf": lambda x, f, t: x - t * x + t * f,
    "f + c(x - f)": complemented,
    "lerp": lambda x, f, t: torch.lerp(x, f, t),
    "lerp, turned": lambda x, f, t: torch.lerp(f, x, 1 - t),
    "stacked and summed": stacked,
    "stacked, weighed and summed": in_pairs(lambda xs, ts: (ts * xs).sum(0)),
    "stacked last, by einsum": in_pairs(lambda xs, ts: torch.einsum("bdn,bdn->bd", xs, ts), -1),
    "written in turn": written_in_turn,
    "in place": in_place,
    "in place, by methods": of_methods,
    "addcmul": lambda x, f, t: torch.addcmul((1 - t) * x, t, f),
    "alpha": lambda x, f, t: torch.add(t * f, torch.rsub(t, 1) * x, alpha=1),
}


def gated(spelling=None):
    return Known(
        network(highway if spelling is None else layers(spelling), highway), FS, binomials(LAYERS), skips="gate"
    )


CASES = {
    "the formula": gated(),
    **{name: gated(spelling) for name, spelling in SPELLINGS.items()},
}

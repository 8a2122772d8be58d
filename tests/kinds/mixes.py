"""Skips that mix several streams by weights: known answers.

    X ← R X + q ⊗ f(p X)        hyper-connections: n streams, a mix R between them, p what the branch reads, q writes

R is held on the skip: its own derivative is one step, like the branch. p and q belong to the branch.
"""

import torch
from torch import cat, nn

from kinds.known import ROWS, WIDTH, WORDS, Known
from kinds.mix_weights import STREAMS, DoublyStochastic, Dynamic, Fixed
from kinds.told import Told
from kinds.trails import binomials
from networks import mlp

LAYERS = 3
FS = "f0 f1 f2"


class Attention(nn.Module):
    """One head over the positions of [batch, positions, width]."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, z):
        q, k, v = self.qkv(z).chunk(3, -1)
        return torch.softmax(q @ k.mT / 2, -1) @ v


def rectified():
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())


def apart(x):
    """The streams are a dimension before the last."""
    return x.unsqueeze(-2).expand(*x.shape[:-1], STREAMS, WIDTH)


def mixed(net, mark, x):
    """The streams are [..., STREAMS, WIDTH]: the reference of all spellings."""
    streams = apart(x)
    for k in range(LAYERS):
        r, p, q = net.mix[k](streams)
        z = (p.unsqueeze(-1) * streams).sum(-2)
        written = q.unsqueeze(-1) * net.f[k](z).unsqueeze(-2)
        streams = mark.skip(f"f{k}", mark.gate(f"f{k}", r) @ streams) + mark(f"f{k}", written)
    return read(net, streams)


def read(net, streams):
    total = streams.sum(-2)
    return net.head(total if total.ndim == 2 else total.mean(1))


def of_einsum(net, mark, x):
    streams = apart(x)
    for k in range(LAYERS):
        r, p, q = net.mix[k](streams)
        z = torch.einsum("bn,bnd->bd", p, streams)
        streams = torch.einsum("bij,bjd->bid", r, streams) + torch.einsum("bn,bd->bnd", q, net.f[k](z))
    return read(net, streams)


def of_products(net, mark, x):
    """A sum over a product that is spread."""
    streams = apart(x)
    for k in range(LAYERS):
        r, p, q = net.mix[k](streams)
        z = (p[:, :, None] * streams).sum(1)
        streams = q[:, :, None] * net.f[k](z)[:, None] + (r[..., None] * streams[:, None]).sum(2)
    return read(net, streams)


def of_the_paper(net, mark, x):
    """The first column of one product is what the branch reads, the others are the skip."""
    streams = apart(x)
    for k in range(LAYERS):
        r, p, q = net.mix[k](streams)
        both = cat([p.unsqueeze(-1), r.mT], -1).mT @ streams
        z, skip = both[:, 0], both[:, 1:]
        streams = torch.einsum("bd,bn->bnd", net.f[k](z), q) + skip
    return read(net, streams)


def fused(net, mark, x):
    streams = apart(x)
    for k in range(LAYERS):
        r, p, q = net.mix[k](streams)
        z = torch.bmm(p[:, None], streams)[:, 0]
        streams = torch.baddbmm(torch.bmm(q[:, :, None], net.f[k](z)[:, None]), r, streams)
    return read(net, streams)


def turned(net, mark, x):
    """The streams are the last dimension, and mixed from the right."""
    streams = apart(x).mT
    for k in range(LAYERS):
        r, p, q = net.mix[k](streams.mT)
        z = (streams @ p.unsqueeze(-1)).squeeze(-1)
        streams = streams @ r.mT + net.f[k](z).unsqueeze(-1) * q.unsqueeze(-2)
    return read(net, streams.mT)


def folded(net, mark, x):
    """The streams are folded into the batch, as in the package hyper-connections."""
    batch = x.shape[0]
    streams = x.repeat_interleave(STREAMS, 0)
    for k in range(LAYERS):
        unfolded = streams.unflatten(0, (batch, STREAMS)).movedim(1, -2)
        r, p, q = net.mix[k](unfolded)
        z = (p.unsqueeze(-1) * unfolded).sum(-2)
        skip = (r @ unfolded).movedim(-2, 1).flatten(0, 1)
        streams = skip + (q.unsqueeze(-1) * net.f[k](z).unsqueeze(-2)).movedim(-2, 1).flatten(0, 1)
    return read(net, streams.unflatten(0, (batch, STREAMS)).movedim(1, -2))


def of_the_package(net, mark, x):
    """One product for both, folded into the batch: the package hyper-connections."""
    batch = x.shape[0]
    streams = x.repeat_interleave(STREAMS, 0)
    for k in range(LAYERS):
        unfolded = streams.unflatten(0, (batch, STREAMS)).movedim(1, -2)
        r, p, q = net.mix[k](unfolded)
        both = cat([p.unsqueeze(-1), r.mT], -1).mT @ unfolded
        z, skip = both[..., 0, :], both[..., 1:, :].movedim(-2, 1).flatten(0, 1)
        streams = (q.unsqueeze(-1) * net.f[k](z).unsqueeze(-2)).movedim(-2, 1).flatten(0, 1) + skip
    return read(net, streams.unflatten(0, (batch, STREAMS)).movedim(1, -2))


def hyper(mix, branch=None, story=mixed):
    make = branch or (lambda: mlp(WIDTH))
    return lambda: Told(
        story,
        mixed,
        mix=nn.ModuleList(mix() for _ in range(LAYERS)),
        f=nn.ModuleList(make() for _ in range(LAYERS)),
        head=nn.Linear(WIDTH, 3),
    )


def mix_of(make, inputs=ROWS, skips="mix"):
    return Known(make, FS, binomials(LAYERS), inputs=(inputs,), skips=skips)


SPELLINGS = {
    "einsum": of_einsum,
    "spread products": of_products,
    "one product for both": of_the_paper,
    "baddbmm": fused,
    "from the right": turned,
    "folded into the batch": folded,
}

# Open: a mix by learned weights that no data reaches is a product with parameters, and so may be called a projection.
STATIC = "mix|projection"

CASES = {
    "static": mix_of(hyper(Fixed), skips=STATIC),
    "static, einsum": mix_of(hyper(Fixed, story=of_einsum), skips=STATIC),
    "static, folded into the batch": mix_of(hyper(Fixed, story=folded), skips=STATIC),
    "dynamic": mix_of(hyper(Dynamic)),
    **{f"dynamic, {name}": mix_of(hyper(Dynamic, story=story)) for name, story in SPELLINGS.items()},
    "dynamic, one product for both, folded into the batch": mix_of(hyper(Dynamic, story=of_the_package)),
    "dynamic, attention": mix_of(hyper(Dynamic, Attention), WORDS),
    "dynamic, ending in a ReLU": mix_of(hyper(Dynamic, rectified)),
    "doubly stochastic": mix_of(hyper(DoublyStochastic)),
    **{f"doubly stochastic, {name}": mix_of(hyper(DoublyStochastic, story=SPELLINGS[name])) for name in SPELLINGS},
    "doubly stochastic, attention": mix_of(hyper(DoublyStochastic, Attention), WORDS),
    "doubly stochastic, attention, folded into the batch": mix_of(hyper(DoublyStochastic, Attention, folded), WORDS),
}

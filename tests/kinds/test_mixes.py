"""Skips that mix several streams by weights, and stacks that are read by weights: known answers.

    X ← R X + q ⊗ f(p X)        hyper-connections: n streams, a mix R between them, p what the branch reads, q writes
    V ← [V, f(α V)]             attention residuals: the outputs of all layers, read by weights α over depth

R is held on the skip: its own derivative is one step, like the branch. p, q and α belong to the branch, or to the head.
"""

import pytest
import torch
from torch import cat, nn
from torch.nn import functional as F  # noqa: N812

from kinds.known import CHECKS, ROWS, WIDTH, WORDS, Known
from kinds.polynomials import binomials
from kinds.told import Told
from marks import quick
from networks import mlp, normal

# Three streams: doubly stochastic of two would be symmetric, and hide what is transposed.
LAYERS, STREAMS = 3, 3
FS = "f0 f1 f2"


def parameter(*shape, seed):
    return nn.Parameter(normal(*shape, seed=seed))


class Fixed(nn.Module):
    """R, p and q are learned."""

    def __init__(self):
        super().__init__()
        self.r, self.p, self.q = (parameter(*shape, seed=0) for shape in ((STREAMS, STREAMS), (STREAMS,), (STREAMS,)))

    def forward(self, streams):
        batch = streams.shape[:-2]
        return tuple(w.expand(*batch, *w.shape) for w in (self.r, self.p, self.q))


class Dynamic(Fixed):
    """Zhu et al. 2024: of each a learned part, and one computed from the normed streams."""

    def __init__(self):
        super().__init__()
        self.norm, self.of = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, STREAMS + 2)
        self.scale = parameter(3, seed=1)

    def forward(self, streams):
        r, p, q = torch.tanh(self.of(self.norm(streams))).split([STREAMS, 1, 1], -1)
        return (
            self.r + self.scale[0] * r,
            self.p + self.scale[1] * p.squeeze(-1),
            self.q + self.scale[2] * q.squeeze(-1),
        )


class DoublyStochastic(nn.Module):
    """mHC: R by Sinkhorn's iterations, so that rows and columns sum to one; p and q by sigmoids."""

    def __init__(self):
        super().__init__()
        self.of = nn.Linear(STREAMS * WIDTH, STREAMS * (STREAMS + 2))

    def forward(self, streams):
        every = self.of(F.rms_norm(streams.flatten(-2), (STREAMS * WIDTH,), eps=1e-3))
        r, p, q = every.split([STREAMS * STREAMS, STREAMS, STREAMS], -1)
        r = torch.exp(r.unflatten(-1, (STREAMS, STREAMS)))
        for _ in range(4):
            r = r / r.sum(-1, keepdim=True)
            r = r / r.sum(-2, keepdim=True)
        return r, torch.sigmoid(p), 2 * torch.sigmoid(q)


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
        streams = mark.gate(f"f{k}", r) @ streams + mark(f"f{k}", written)
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
        unfolded = streams.unflatten(0, (batch, STREAMS))
        r, p, q = net.mix[k](unfolded)
        z = (p.unsqueeze(-1) * unfolded).sum(1)
        skip = (r @ unfolded).flatten(0, 1)
        streams = skip + (q.unsqueeze(-1) * net.f[k](z).unsqueeze(1)).flatten(0, 1)
    return read(net, streams.unflatten(0, (batch, STREAMS)))


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

MIXES = {
    "static": mix_of(hyper(Fixed), skips=STATIC),
    "static, einsum": mix_of(hyper(Fixed, story=of_einsum), skips=STATIC),
    "static, folded into the batch": mix_of(hyper(Fixed, story=folded), skips=STATIC),
    "dynamic": mix_of(hyper(Dynamic)),
    **{f"dynamic, {name}": mix_of(hyper(Dynamic, story=story)) for name, story in SPELLINGS.items()},
    "dynamic, attention": mix_of(hyper(Dynamic, Attention), WORDS),
    "dynamic, ending in a ReLU": mix_of(hyper(Dynamic, rectified)),
    "doubly stochastic": mix_of(hyper(DoublyStochastic)),
    **{f"doubly stochastic, {name}": mix_of(hyper(DoublyStochastic, story=SPELLINGS[name])) for name in SPELLINGS},
    "doubly stochastic, attention": mix_of(hyper(DoublyStochastic, Attention), WORDS),
}


# --- attention residuals ----------------------------------------------------------------------------------------------


def weights(query, stack):
    return torch.softmax(F.rms_norm(stack, (WIDTH,), eps=1e-3) @ query, 1)


def growing(net, mark, x):
    """One stack that grows by what each layer gives."""
    stack = x[:, None]
    for k in range(LAYERS):
        alpha = weights(net.query[k], stack)
        z = (alpha.unsqueeze(-1) * stack).sum(1)
        stack = cat([stack, mark(f"f{k}", net.f[k](z)[:, None])], 1)
    alpha = mark.held(weights(net.query[LAYERS], stack))
    return net.head((alpha.unsqueeze(-1) * stack).sum(1))


def stacked_anew(net, mark, x):
    """A list that each layer stacks anew."""
    outputs = [x]
    for k in range(LAYERS):
        stack = torch.stack(outputs, 1)
        z = torch.einsum("bk,bkd->bd", weights(net.query[k], stack), stack)
        outputs.append(net.f[k](z))
    stack = torch.stack(outputs, 1)
    return net.head(torch.einsum("bk,bkd->bd", weights(net.query[LAYERS], stack), stack))


def by_matmul(net, mark, x):
    stack = x[:, None]
    for k in range(LAYERS):
        z = weights(net.query[k], stack)[:, None] @ stack
        stack = cat([stack, net.f[k](z)], 1)
    return net.head((weights(net.query[LAYERS], stack)[:, None] @ stack)[:, 0])


def stack_of(story):
    def make():
        f = nn.ModuleList(mlp(WIDTH) for _ in range(LAYERS))
        query = nn.Parameter(normal(LAYERS + 1, WIDTH))
        return Told(story, growing, f=f, query=query, head=nn.Linear(WIDTH, 3))

    return Known(make, FS, binomials(LAYERS), joins="concatenation")


STACKS = {
    "attention residuals": stack_of(growing),
    "attention residuals, stacked anew": stack_of(stacked_anew),
    "attention residuals, matmul": stack_of(by_matmul),
}

CASES = {**MIXES, **STACKS}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", quick(CASES, *CASES))
def test_a_known_answer(name, check):
    check(CASES[name])


def test_the_mix_of_mhc_is_doubly_stochastic():
    """Otherwise it would be no example of one: columns exactly, by the last step, and rows nearly."""
    network = CASES["doubly stochastic"].network
    r, _, _ = network.mix[0](apart(ROWS))
    assert torch.allclose(r.sum(-2), torch.ones_like(r.sum(-2)))
    assert torch.allclose(r.sum(-1), torch.ones_like(r.sum(-1)), atol=0.05)
    assert not torch.allclose(r, r.mT, atol=0.05)

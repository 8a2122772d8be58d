"""Skips that are multiplied by numbers computed from the data, and branches that are: known answers.

h ← c·h + t·f(h)        the skip's coefficient c is held: its own derivative is one step, like the branch
"""

import torch
from torch import nn, sigmoid

from kinds.known import WIDTH, WORDS, Known
from kinds.told import Told
from kinds.trails import START, binomials, chain, join, lengths, read
from networks import F64, mlp, normal

LAYERS = 3
FS = "f0 f1 f2"


def several(make, count=LAYERS):
    return nn.ModuleList(make(WIDTH) for _ in range(count))


def linear(width):
    return nn.Linear(width, width)


def paired(width):
    return nn.Linear(2 * width, width)


def vectors():
    return nn.Parameter(torch.ones(LAYERS, WIDTH, dtype=F64))


def network(story, reference=None, **parts):
    modules = {"f": several(mlp), "t": several(linear), "head": nn.Linear(WIDTH, 3)}
    return lambda: Told(story, reference, **{**modules, **parts})


def uncoupled(net, mark, x):
    """Srivastava's transform and carry gates, each its own."""
    for k in range(LAYERS):
        t, c = sigmoid(net.t[k](x)), sigmoid(net.c[k](x))
        x = mark(f"f{k}", t * net.f[k](x)) + mark.gate(f"f{k}", c) * x
    return net.head(x)


def carried_alone(net, mark, x):
    """A gate on the skip, and none on the branch."""
    for k in range(LAYERS):
        x = mark.gate(f"f{k}", sigmoid(net.t[k](x))) * x + mark(f"f{k}", net.f[k](x))
    return net.head(x)


def one_number(net, mark, x):
    """A gate for each example, spread over its features."""
    for k in range(LAYERS):
        t = sigmoid(net.t[k](x)).mean(-1, keepdim=True)
        x = mark(f"f{k}", t * net.f[k](x)) + (1 - mark.gate(f"f{k}", t)) * x
    return net.head(x)


def weighed(contract):
    """The same, where (1 − t, t) weigh a stack of x and f(x)."""

    def story(net, mark, x):
        for k in range(LAYERS):
            t = sigmoid(net.t[k](x)).mean(-1, keepdim=True)
            x = contract(x, net.f[k](x), torch.cat([1 - t, t], -1))
        return net.head(x)

    return story


WEIGHED = {
    "a product and a sum": lambda x, f, w: (torch.stack([x, f], 1) * w[:, :, None]).sum(1),
    "einsum": lambda x, f, w: torch.einsum("bn,nbd->bd", w, torch.stack([x, f])),
    "einsum with dots": lambda x, f, w: torch.einsum("n...,...n->...", torch.stack([x.T, f.T]), w).T,
    "matmul": lambda x, f, w: (torch.stack([x, f], -1) @ w[:, :, None]).squeeze(-1),
    "bmm, from the left": lambda x, f, w: torch.bmm(w[:, None], torch.stack([x, f], 1))[:, 0],
}


def learned_weights(contract):
    """α x + β f(x), with (α, β) as one parameter."""

    def story(net, mark, x):
        for k in range(LAYERS):
            x = contract([x, net.f[k](x)], net.alpha[k, :2])
        return net.head(x)

    return story


def of_learned_weights(net, mark, x):
    for k in range(LAYERS):
        x = net.alpha[k, 0] * x + mark(f"f{k}", net.alpha[k, 1] * net.f[k](x))
    return net.head(x)


LEARNED = {
    "tensordot": lambda xs, w: torch.tensordot(w, torch.stack(xs), 1),
    "einsum over all": lambda xs, w: torch.einsum("n,n...->...", w, torch.stack(xs)),
    "a product and a sum": lambda xs, w: (torch.stack(xs) * w[:, None, None]).sum(0),
    "linear": lambda xs, w: torch.nn.functional.linear(torch.stack(xs, -1), w[None])[..., 0],
}


def gate_of_the_branch(net, mark, x):
    """The gate is computed from f(x), which is computed from x."""
    for k in range(LAYERS):
        f = net.f[k](x)
        x = mark.gate(f"f{k}", sigmoid(net.t[k](f))) * x + mark(f"f{k}", f)
    return net.head(x)


def gated_fusion(spelling):
    """One gate of both, σ(W f + U x), on both."""

    def story(net, mark, x):
        for k in range(LAYERS):
            f = net.f[k](x)
            x = spelling(mark, k, x, f, sigmoid(net.t[k](torch.cat([x, f], -1))))
        return net.head(x)

    return story


def fused(mark, k, x, f, t):
    return (1 - mark.gate(f"f{k}", t)) * x + mark(f"f{k}", t * f)


FUSED = {
    "as a product of the difference": lambda mark, k, x, f, t: x + t * (f - x),
    "as lerp": lambda mark, k, x, f, t: torch.lerp(x, f, t),
    "turned": lambda mark, k, x, f, t: t * f + (1 - t) * x,
}


def gate_of_tokens(net, mark, x):
    """The gate of each position comes from all of them."""
    for k in range(LAYERS):
        t = torch.softmax(net.t[k](x), 1)
        x = mark(f"f{k}", net.f[k](x)) + mark.gate(f"f{k}", t) * x
    return net.head(x.mean(1))


def gru_gate(net, mark, x):
    """GTrXL: r and z read the sublayer's output y and the stream, and h is what the branch adds."""
    for k in range(LAYERS):
        y = net.f[k](x)
        r = sigmoid(net.wr[k](y) + net.ur[k](x))
        z = sigmoid(net.wz[k](y) + net.uz[k](x) - net.bias)
        h = torch.tanh(net.wg[k](y) + net.ug[k](r * x))
        x = (1 - mark.gate(f"f{k}", z)) * x + mark(f"f{k}", z * h)
    return net.head(x)


def two_branches(net, mark, x):
    """The gate's own derivative is a step once, with the first of them."""
    for k in range(LAYERS):
        t, s = sigmoid(net.t[k](x)), sigmoid(net.c[k](x))
        x = mark(f"f{k}", t * net.f[k](x)) + mark(f"f{k}", s * net.g[k](x)) + (1 - mark.gate(f"f{k}", t)) * x
    return net.head(x)


def around_a_block(net, mark, x):
    """A highway whose branch holds a residual block."""
    for k in range(2):
        t, z = sigmoid(net.t[k](x)), net.f[k](x)
        z = z + mark(f"inner{k}", net.g[k](z))
        x = mark(f"f{k}", t * net.out[k](z)) + (1 - mark.gate(f"f{k}", t)) * x
    return net.head(x)


def of_around_a_block():
    """The branch reads the stream by its own gate, too, past the inner block."""
    x = START
    for k in range(2):
        x = join(f"f{k}", x, read(x, chain(f"inner{k}", x)))
    return lengths(x, "f0", "f1")


GRU = {name: several(linear) for name in ("wr", "ur", "wz", "uz", "wg", "ug")}


def rezero(net, mark, x):
    for k in range(LAYERS):
        x = x + mark(f"f{k}", net.alpha[k, 0] * net.f[k](x))
    return net.head(x)


def layer_scale(net, mark, x):
    for k in range(LAYERS):
        x = x + mark(f"f{k}", net.alpha[k] * net.f[k](x))
    return net.head(x)


def weighted(net, mark, x):
    """Muse: α x + β f(x), both learned."""
    for k in range(LAYERS):
        x = net.alpha[k] * x + mark(f"f{k}", net.beta[k] * net.f[k](x))
    return net.head(x)


def weighted_by_data(net, mark, x):
    """The same with α = 1 + tanh(W x) from the data."""
    for k in range(LAYERS):
        alpha = 1 + torch.tanh(net.t[k](x))
        x = mark.gate(f"f{k}", alpha) * x + mark(f"f{k}", net.beta[k] * net.f[k](x))
    return net.head(x)


def residual_attention(net, mark, x):
    """x + g(x)·x: beside the identity the gated copy is the branch."""
    for k in range(LAYERS):
        x = x + mark(f"f{k}", sigmoid(net.t[k](x)) * x)
    return net.head(x)


def residual_attention_and_branch(net, mark, x):
    """x + g(x)·x + f(x): the copies are one coefficient, 1 + g, and f is the branch."""
    for k in range(LAYERS):
        g = sigmoid(net.t[k](x))
        x = x + mark.gate(f"f{k}", g) * x + mark(f"f{k}", net.f[k](x))
    return net.head(x)


CASES = {
    "uncoupled gates": Known(network(uncoupled, c=several(linear)), FS, binomials(LAYERS), skips="gate"),
    "a gate on the skip alone": Known(network(carried_alone), FS, binomials(LAYERS), skips="gate"),
    "a gate of one number": Known(network(one_number), FS, binomials(LAYERS), skips="gate"),
    **{
        f"a gate of one number, stacked: {name}": Known(
            network(weighed(contract), one_number), FS, binomials(LAYERS), skips="gate"
        )
        for name, contract in WEIGHED.items()
    },
    **{
        f"learned weights, stacked: {name}": Known(
            network(learned_weights(contract), of_learned_weights, alpha=vectors()),
            FS,
            binomials(LAYERS),
            skips="projection",
        )
        for name, contract in LEARNED.items()
    },
    "a gate of the branch": Known(network(gate_of_the_branch), FS, binomials(LAYERS), skips="gate"),
    # By the letter [x, f], which the gate reads, is a block inside of it.
    **{
        f"gated fusion {name}": Known(
            network(gated_fusion(spelling), gated_fusion(fused), t=several(paired)),
            FS,
            binomials(LAYERS),
            skips="gate",
            unsettled=True,
        )
        for name, spelling in {"": fused, **FUSED}.items()
    },
    "a gate of positions": Known(network(gate_of_tokens), FS, binomials(LAYERS), inputs=(WORDS,), skips="gate"),
    "ReZero": Known(network(rezero, alpha=vectors()), FS, binomials(LAYERS)),
    "LayerScale": Known(network(layer_scale, alpha=vectors()), FS, binomials(LAYERS)),
    # A learned coefficient is a projection as a number is: no data is in it.
    "learned weights": Known(
        network(weighted, alpha=vectors(), beta=vectors()), FS, binomials(LAYERS), skips="projection"
    ),
    "weights from data": Known(network(weighted_by_data, beta=vectors()), FS, binomials(LAYERS), skips="gate"),
    "residual attention": Known(network(residual_attention), FS, binomials(LAYERS)),
    "two branches": Known(
        network(two_branches, c=several(linear), g=several(mlp)),
        FS,
        [1, 6, 12, 8],
        skips="gate",
        branches=(2, 2, 2),
    ),
    # Open: with the inner block in the place of the branch around it, whether the gate's derivative is a step. Here it
    # is none: it goes with the first branch, and entering that one adds nothing.
    "around a block": Known(
        network(around_a_block, g=several(mlp), out=several(linear)),
        "f0 f1",
        binomials(2),
        skips="gate",
        nested={"inner0": "f0", "inner1": "f1"},
        opened=of_around_a_block(),
    ),
    # Open: whether the sums of W y and U x, y = f(x), of which r, z and h are made, are blocks inside.
    "GTrXL": Known(
        network(gru_gate, bias=nn.Parameter(normal(WIDTH)), **GRU), FS, binomials(LAYERS), skips="gate", unsettled=True
    ),
    "residual attention and a branch": Known(
        network(residual_attention_and_branch), FS, binomials(LAYERS), skips="gate"
    ),
}

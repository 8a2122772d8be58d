"""References that are broken in one place: each is the network, with a mark that is missing, doubled or misplaced."""

from torch import cat, sigmoid

from kinds import dense, gates, highways, mixes, one_trunk, two_trunks


def transposed(net, mark, x):
    """R with rows and columns exchanged."""
    streams = mixes.apart(x)
    for k in range(mixes.LAYERS):
        r, p, q = net.mix[k](streams)
        z = (p.unsqueeze(-1) * streams).sum(-2)
        written = q.unsqueeze(-1) * net.f[k](z).unsqueeze(-2)
        streams = mark.gate(f"f{k}", r.mT) @ streams + mark(f"f{k}", written)
    return mixes.read(net, streams)


def counted_twice(net, mark, x):
    """The derivative of a gate is two steps: its own, and the branch's."""
    for k in range(gates.LAYERS):
        t = sigmoid(net.t[k](x))
        x = mark(f"f{k}", t * net.f[k](x)) + (1 - mark.gate(f"f{k}", mark.gate(f"f{k}", t))) * x
    return net.head(x)


def not_counted(net, mark, x):
    """The derivative of a gate is none: as if it were the skip's own."""
    for k in range(gates.LAYERS):
        t = sigmoid(net.t[k](x))
        x = mark(f"f{k}", t * net.f[k](x)) + (1 - t) * x
    return net.head(x)


def held_for_good(net, mark, x):
    """The derivative of a gate is lost."""
    for k in range(gates.LAYERS):
        t = sigmoid(net.t[k](x))
        x = mark(f"f{k}", t * net.f[k](x)) + (1 - t.detach()) * x
    return net.head(x)


def mix_not_counted(net, mark, x):
    """The derivative of R is none."""
    streams = mixes.apart(x)
    for k in range(mixes.LAYERS):
        r, p, q = net.mix[k](streams)
        z = (p.unsqueeze(-1) * streams).sum(-2)
        streams = r @ streams + mark(f"f{k}", q.unsqueeze(-1) * net.f[k](z).unsqueeze(-2))
    return mixes.read(net, streams)


def dropped(net, mark, x):
    """The last concatenation passes its skip's values, and no gradient."""
    for k in range(dense.LAYERS):
        skip = x if k < dense.LAYERS - 1 else x.detach()
        x = cat([skip, mark(f"f{k}", net.f[k](x))], -1)
    return net.head(x)


def at_another_place(net, mark, x):
    """What was appended is taken from the front."""
    for k in range(dense.LAYERS):
        f = mark(f"f{k}", net.f[k](x))
        x = cat([x, f], -1) if k else cat([f, x], -1)
    return net.head(x)


def merged(net, mark, x):
    """The head's sum of both trunks is a block, whose branch is b."""
    a = b = net.embed(x)
    for k in range(two_trunks.LAYERS):
        a = a + mark(f"F{k}", net.f[k](b))
        b = b + mark(f"G{k}", net.g[k](a))
    return net.head(a + mark("F0", b))


def missed(net, mark, x):
    """One of two trunks has no blocks."""
    a = b = net.embed(x)
    for k in range(two_trunks.LAYERS):
        a = a + mark(f"F{k}", net.f[k](b))
        b = b + net.g[k](a)
    return net.head(a + b)


def later(net, mark, x):
    """b reads what a was before."""
    a = b = net.embed(x)
    for k in range(two_trunks.LAYERS):
        f, g = mark(f"F{k}", net.f[k](b)), mark(f"G{k}", net.g[k](a))
        a, b = a + f, b + g
    return net.head(a + b)


def deepest_is_a_block(net, mark, x):
    """h1 + h3 + h4: the head's sum is a block over all."""
    h1 = net.embed(x)
    h2 = h1 + mark("f0", net.f[0](h1))
    h3 = h2 + mark("f1", net.f[1](h2))
    h4 = h3 + mark("f2", net.f[2](h3))
    return net.head(h1 + mark("f0", h3 + h4))


MUTANTS = {
    "a transposed mix": (mixes.CASES["dynamic"], transposed),
    "a transposed mix that is doubly stochastic": (mixes.CASES["doubly stochastic, einsum"], transposed),
    "a transposed mix of learned weights": (mixes.CASES["static"], transposed),
    "a mix whose derivative is not counted": (mixes.CASES["doubly stochastic, einsum"], mix_not_counted),
    "a gate counted twice": (highways.CASES["x + t(f - x)"], counted_twice),
    "a gate not counted": (highways.CASES["x + t(f - x)"], not_counted),
    "a gate held for good": (highways.CASES["x + t(f - x)"], held_for_good),
    "a dropped operand": (dense.CASES["a list"], dropped),
    "operands that have changed places": (dense.CASES["a list"], at_another_place),
    "a merge taken for a block": (two_trunks.CASES["reversible"], merged),
    "a trunk that was missed": (two_trunks.CASES["reversible"], missed),
    "a branch that reads too early": (two_trunks.CASES["reversible"], later),
    "a head taken for a block": (one_trunk.CASES["several depths"], deepest_is_a_block),
}

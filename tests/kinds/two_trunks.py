"""Two trunks that read each other: known answers.

Beside each story stands a function that writes down its paths (`trails`).
"""

from torch import cat, nn

from kinds.known import WIDTH, Known
from kinds.told import Told
from kinds.trails import START, chain, join, lengths, read
from networks import mlp, normal

LAYERS = 3
NODES, EDGES = normal(2, 3, WIDTH, seed=1), normal(2, 3, 3, WIDTH, seed=2)


def linear(inputs=WIDTH, outputs=WIDTH):
    return nn.Linear(inputs, outputs)


def several(make=mlp, count=LAYERS, width=WIDTH):
    return nn.ModuleList(make(width) for _ in range(count))


def two(story, reference=None, **parts):
    """A story of two trunks."""
    modules = {"embed": linear(), "f": several(), "g": several(), "head": linear(outputs=3)}
    return lambda: Told(story, reference, **{**modules, **parts})


def reversible(net, mark, x):
    a = b = net.embed(x)
    for k in range(LAYERS):
        a = mark.skip(f"F{k}", a) + mark(f"F{k}", net.f[k](b))
        b = mark.skip(f"G{k}", b) + mark(f"G{k}", net.g[k](a))
    return net.head(a + b)


def of_reversible(layers):
    a = b = START
    for k in range(layers):
        a = join(f"F{k}", a, b)
        b = join(f"G{k}", b, a)
    return lengths(read(a, b))


def simultaneous(net, mark, x):
    a = b = net.embed(x)
    for k in range(LAYERS):
        f, g = mark(f"F{k}", net.f[k](b)), mark(f"G{k}", net.g[k](a))
        a, b = a + f, b + g
    return net.head(a + b)


def of_simultaneous(layers):
    a = b = START
    for k in range(layers):
        a, b = join(f"F{k}", a, b), join(f"G{k}", b, a)
    return lengths(read(a, b))


def simultaneous_of_two(net, mark, x):
    a, b = net.embed(x), net.other(x)
    for k in range(LAYERS):
        a, b = a + mark(f"F{k}", net.f[k](b)), b + mark(f"G{k}", net.g[k](a))
    return net.head(a + b)


def halves(net, mark, x):
    """The halves are cut once, and put together at the end."""
    a, b = net.embed(x).chunk(2, -1)
    for k in range(LAYERS):
        a = a + mark(f"F{k}", net.f[k](b))
        b = b + mark(f"G{k}", net.g[k](a))
    return net.head(cat([a, b], -1))


def halves_of_each_layer(net, mark, x):
    """revtorch: each layer takes a whole tensor, and gives one."""
    h = net.embed(x)
    for k in range(LAYERS):
        a, b = h.chunk(2, -1)
        a = a + mark(f"F{k}", net.f[k](b))
        h = cat([a, b + mark(f"G{k}", net.g[k](a))], -1)
    return net.head(h)


def halved(story):
    thin = WIDTH // 2
    return two(story, halves, f=several(width=thin), g=several(width=thin))


def chains(net, mark, x):
    """Two chains that read each other, each its own state as well."""
    a, b = net.embed(x), net.other(x)
    for k in range(LAYERS):
        a = a + mark(f"F{k}", net.f[k](net.fa[k](a) + net.fb[k](b)))
        b = b + mark(f"G{k}", net.g[k](net.ga[k](a) + net.gb[k](b)))
    return net.head(a + b)


def of_chains(layers):
    a = b = START
    for k in range(layers):
        a = join(f"F{k}", a, read(a, b))
        b = join(f"G{k}", b, read(a, b))
    return lengths(read(a, b))


def graph_network(net, mark, nodes, edges):
    """Edges read the nodes at both of their ends, nodes the mean of their edges; the last edges only the nodes read."""
    h, e = nodes, edges
    for k in range(LAYERS):
        e = e + mark(f"E{k}", net.f[k](net.fb[k](e) + net.fa[k](h)[:, :, None] + net.fc[k](h)[:, None]))
        h = h + mark(f"N{k}", net.g[k](net.ga[k](h) + net.gb[k](e).mean(2)))
    return net.head(h.mean(1))


def of_graph_network(layers):
    """From nodes and edges alike."""
    e = h = START
    for k in range(layers):
        e = join(f"E{k}", e, read(e, h))
        h = join(f"N{k}", h, read(h, e))
    return lengths(h)


def reading(*names):
    return {name: several(lambda width: nn.Linear(width, width)) for name in names}


def from_another_alone(net, mark, x):
    """A trunk of two blocks of its own, and one whose branch comes from the other trunk alone."""
    a, b = net.embed(x), net.other(x)
    a = a + mark("F0", net.f[0](a))
    b = b + mark("G0", net.g[0](b))
    b = b + mark("G1", net.g[1](a))
    b = b + mark("G2", net.g[2](b))
    return net.head(b)


def of_another_alone():
    a, b = chain("F0"), chain("G0")
    return lengths(chain("G2", join("G1", b, a)))


CASES = {
    "reversible": Known(two(reversible), "F0 G0 F1 G1 F2 G2", of_reversible(LAYERS), refused=("net.head(a + b)",)),
    "simultaneous": Known(
        two(simultaneous), "F0 G0 F1 G1 F2 G2", of_simultaneous(LAYERS), refused=("net.head(a + b)",)
    ),
    "simultaneous, of two embeddings": Known(
        two(simultaneous_of_two, other=linear()),
        "F0 G0 F1 G1 F2 G2",
        of_simultaneous(LAYERS),
        # Open: a first skip W x beside F(V x) is a projection of x, or the beginning of a trunk that reads another.
        skips="identity|projection identity|projection" + " identity" * 4,
        refused=("net.head(a + b)",),
    ),
    # Open: whether the first skip, a half beside a branch of the other half, is the half itself or a slice of both.
    "halves": Known(
        halved(halves),
        "F0 G0 F1 G1 F2 G2",
        of_reversible(LAYERS),
        skips="identity|projection" + " identity" * 5,
    ),
    "halves of each layer": Known(
        halved(halves_of_each_layer),
        "F0 G0 F1 G1 F2 G2",
        of_reversible(LAYERS),
        skips="identity|projection" + " identity" * 5,
    ),
    "two chains": Known(
        two(chains, other=linear(), **reading("fa", "fb", "ga", "gb")),
        "F0 G0 F1 G1 F2 G2",
        of_chains(LAYERS),
        refused=("net.fa[k](a) + net.fb[k](b)", "net.ga[k](a) + net.gb[k](b)", "net.head(a + b)"),
    ),
    "nodes and edges": Known(
        two(graph_network, **reading("fa", "fb", "fc", "ga", "gb")),
        "E0 N0 E1 N1 E2 N2",
        of_graph_network(LAYERS),
        inputs=(NODES, EDGES),
        refused=("net.fb[k](e) + net.fa[k](h)", "net.ga[k](h) + net.gb[k](e)"),
    ),
    "a branch from another trunk alone": Known(
        two(from_another_alone, other=linear()), "F0 G0 G1 G2", of_another_alone()
    ),
}

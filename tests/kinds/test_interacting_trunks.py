"""Trunks that read each other, and one trunk that is read at several depths: known answers.

Path counts by hand: a branch adds t times the counts of what it reads, a sum adds up, a head reads what it reads.
"""

import pytest
from torch import cat, nn

from kinds.known import CHECKS, WIDTH, Known, counted_by_ones
from kinds.polynomials import ONE, binomials, chain, plus, t
from kinds.told import Told
from marks import quick
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


# --- two trunks -------------------------------------------------------------------------------------------------------


def reversible(net, mark, x):
    a = b = net.embed(x)
    for k in range(LAYERS):
        a = a + mark(f"F{k}", net.f[k](b))
        b = b + mark(f"G{k}", net.g[k](a))
    return net.head(a + b)


def of_reversible(layers):
    a = b = ONE
    for _ in range(layers):
        a = plus(a, t(b))
        b = plus(b, t(a))
    return plus(a, b)


def simultaneous(net, mark, x):
    a, b = net.embed(x), net.embed(x)
    for k in range(LAYERS):
        f, g = mark(f"F{k}", net.f[k](b)), mark(f"G{k}", net.g[k](a))
        a, b = a + f, b + g
    return net.head(a + b)


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
    a = b = ONE
    for _ in range(layers):
        a = plus(a, t(plus(a, b)))
        b = plus(b, t(plus(a, b)))
    return plus(a, b)


def graph_network(net, mark, nodes, edges):
    """Edges read the nodes at both of their ends, nodes the mean of their edges; the last edges only the nodes read."""
    h, e = nodes, edges
    for k in range(LAYERS):
        e = e + mark(f"E{k}", net.f[k](net.fb[k](e) + net.fa[k](h)[:, :, None] + net.fc[k](h)[:, None]))
        h = h + mark(f"N{k}", net.g[k](net.ga[k](h) + net.gb[k](e).mean(2)))
    return net.head(h.mean(1))


def of_graph_network(layers):
    """From nodes and edges alike."""
    e = h = ONE
    for _ in range(layers):
        e = plus(e, t(plus(e, h)))
        h = plus(h, t(plus(h, e)))
    return h


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
    a, b = chain(1), chain(1)
    return chain(1, plus(b, t(a)))


TWO = {
    "reversible": Known(two(reversible), "F0 G0 F1 G1 F2 G2", of_reversible(LAYERS), refused=("net.head(a + b)",)),
    "simultaneous": Known(
        two(simultaneous), "F0 G0 F1 G1 F2 G2", plus(chain(LAYERS), chain(LAYERS)), refused=("net.head(a + b)",)
    ),
    "simultaneous, of two embeddings": Known(
        two(simultaneous_of_two, other=linear()),
        "F0 G0 F1 G1 F2 G2",
        plus(chain(LAYERS), chain(LAYERS)),
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


# --- one trunk, read at several depths --------------------------------------------------------------------------------


def one(story, **parts):
    modules = {"embed": linear(), "f": several(), "head": linear(outputs=3)}
    return lambda: Told(story, **{**modules, **parts})


def stages(net, mark, x):
    """An encoder whose stages are outputs, too."""
    h1 = net.embed(x)
    h1 = h1 + mark("f0", net.f[0](h1))
    h2 = h1 + mark("f1", net.f[1](h1))
    h3 = h2 + mark("f2", net.f[2](h2))
    return net.head(h3), h1, h2


def stages_of_a_branch(net, mark, x):
    """What would be nested reaches an output on its own."""
    h = net.embed(x)
    z = net.into(h)
    s1 = z + mark("f0", net.f[0](z))
    s2 = s1 + mark("f1", net.f[1](s1))
    return net.head(h + mark("outer", net.f[2](s2))), s1, s2


def several_depths(net, mark, x):
    """With h1 = embed(x): the head reads it after none, two and three blocks."""
    h1 = net.embed(x)
    h2 = h1 + mark("f0", net.f[0](h1))
    h3 = h2 + mark("f1", net.f[1](h2))
    h4 = h3 + mark("f2", net.f[2](h3))
    return net.head(h1 + h3 + h4)


def of_several_depths():
    return plus(ONE, chain(2), chain(3))


def several_of_four(net, mark, x):
    """With four blocks: after the first, third and fourth."""
    h = [net.embed(x)]
    for k in range(4):
        h.append(h[-1] + mark(f"f{k}", net.f[k](h[-1])))
    return net.head(h[1] + h[3] + h[4])


def injected(net, mark, x):
    """The input again at each layer, beside an embedding of it."""
    h = net.embed(x)
    for k in range(LAYERS):
        u = h + mark(f"f{k}", net.f[k](h))
        h = u + 0.3 * x
    return net.head(h)


def of_injected(h):
    for _ in range(LAYERS):
        h = plus(chain(1, h), ONE)
    return h


def injected_in_one_sum(net, mark, x):
    h = net.embed(x)
    for k in range(LAYERS):
        h = h + mark(f"f{k}", net.f[k](h)) + 0.3 * x
    return net.head(h)


def injected_itself(net, mark, x):
    """In the first layer the stream is the input: x + f(x) + 0.3 x = 1.3 x + f(x)."""
    h = x
    for k in range(LAYERS):
        h = h + mark(f"f{k}", net.f[k](h)) + 0.3 * x
    return net.head(h)


def of_injected_itself():
    return plus(chain(1, plus(chain(1, chain(1)), ONE)), ONE)


def averaged(net, mark, x):
    """ELMo: the head reads a learned average of all layers."""
    h = [net.embed(x)]
    for k in range(LAYERS):
        h.append(h[-1] + mark(f"f{k}", net.f[k](h[-1])))
    return net.head(net.w[0] * h[0] + net.w[1] * h[1] + net.w[2] * h[2] + net.w[3] * h[3])


def dense_former(net, mark, x):
    """DenseFormer: each layer reads a learned average of all earlier ones."""
    h = net.embed(x)
    seen = [h]
    for k in range(LAYERS):
        seen.append(h + mark(f"f{k}", net.f[k](h)))
        h = sum(net.w[k, i] * value for i, value in enumerate(seen))
    return net.head(h)


def of_dense_former():
    seen, h = [ONE], ONE
    for _ in range(LAYERS):
        seen.append(chain(1, h))
        h = plus(*seen)
    return h


def supervised(net, mark, x):
    """Deep supervision: a head for each layer, and their sum."""
    h = net.embed(x)
    total = net.heads[0](h)
    for k in range(LAYERS):
        h = h + mark(f"f{k}", net.f[k](h))
        total = total + net.heads[k + 1](h)
    return total


def supervised_at_the_end(net, mark, x):
    h, outputs = net.embed(x), []
    for k in range(LAYERS):
        h = h + mark(f"f{k}", net.f[k](h))
        outputs.append(net.heads[k](h))
    return outputs[0] + outputs[1] + outputs[2]


def heads(count):
    return {"heads": nn.ModuleList(linear(outputs=3) for _ in range(count))}


def residual_in_residual(net, mark, x):
    """x + rest(x), where rest is three blocks and nothing else."""
    x = net.embed(x)
    h = x
    for k in range(LAYERS):
        h = h + mark(f"f{k}", net.f[k](h))
    return net.head(x + mark("outer", h))


def scaled_rest(net, mark, x):
    """RRDB's: two outer skips, each over blocks of its own, of which the last is scaled."""
    x = net.embed(x)
    for outer in range(2):
        h = x
        for k in range(2):
            h = h + mark(f"f{outer}{k}", net.f[2 * outer + k](h))
        x = x + mark(f"outer{outer}", 0.2 * h)
    return net.head(x)


RESTS = {f"f{outer}{k}": f"outer{outer}" for outer in range(2) for k in range(2)}
FS = "f0 f1 f2"
ONES = {
    "stages that are outputs": Known(one(stages), FS, binomials(3)),
    "stages of a branch that are outputs": Known(
        one(stages_of_a_branch, into=linear()), "f0 f1 outer", plus(ONE, t(chain(2)))
    ),
    "several depths": Known(one(several_depths), FS, of_several_depths(), refused=("h1 + h3 + h4",)),
    "several depths of four blocks": Known(
        one(several_of_four, f=several(count=4)),
        "f0 f1 f2 f3",
        plus(chain(1), chain(3), chain(4)),
        refused=("h[1] + h[3] + h[4]",),
    ),
    "an input injected again": Known(one(injected), FS, of_injected(ONE), refused=("u + 0.3 * x",)),
    "an input injected in one sum": Known(one(injected_in_one_sum), FS, of_injected(ONE), refused=("+ 0.3 * x",)),
    # Open: the first layer's 0.3 x is collected into S = 1.3, so there is one path and not two.
    "an input injected itself": Known(
        one(injected_itself), FS, of_injected_itself(), skips="projection identity identity", refused=("+ 0.3 * x",)
    ),
    "an average of all layers": Known(
        one(averaged, w=nn.Parameter(normal(4))), FS, plus(*map(chain, range(4))), refused=("net.w[0] * h[0]",)
    ),
    "DenseFormer": Known(
        one(dense_former, w=nn.Parameter(normal(LAYERS, LAYERS + 1))),
        FS,
        of_dense_former(),
        refused=("sum(net.w[k, i]",),
    ),
    "deep supervision": Known(
        one(supervised, **heads(4)), FS, plus(*map(chain, range(4))), refused=("total + net.heads",)
    ),
    "deep supervision, summed at the end": Known(
        one(supervised_at_the_end, **heads(3)), FS, plus(chain(1), chain(2), chain(3)), refused=("outputs[0] +",)
    ),
    "residual in residual": Known(
        one(residual_in_residual),
        "outer",
        binomials(1),
        nested=dict.fromkeys(FS.split(), "outer"),
        opened=plus(ONE, chain(3)),
    ),
    "residual in residual, scaled": Known(
        one(scaled_rest, f=several(count=4)),
        "outer0 outer1",
        binomials(2),
        nested=RESTS,
        opened=plus(plus(ONE, chain(2)), chain(2, plus(ONE, chain(2)))),
    ),
}

CASES = {**TWO, **ONES}


def test_the_counts_of_a_reversible_network_are_fibonacci_numbers():
    assert [sum(of_reversible(layers)) for layers in range(5)] == [2, 5, 13, 34, 89]
    assert sum(of_dense_former()) == 27


# Without those that scale by numbers, cut halves, or read one stream twice: there a path's gradient is not 1.
SCALED = ("halves", "nodes", "an input", "residual in residual, scaled")


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(SCALED)])
def test_the_oracle_counts_the_paths_where_every_map_is_the_identity(name):
    case = CASES[name]
    assert counted_by_ones(case, opened=True) == [*(case.opened or case.counts)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", quick(CASES, *CASES))
def test_a_known_answer(name, check):
    check(CASES[name])

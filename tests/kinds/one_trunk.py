"""One trunk that is read at several depths: by a head, by a sum, by an output, by a skip over all of it."""

from torch import nn

from kinds.known import WIDTH, Known
from kinds.told import Told
from kinds.trails import START, binomials, chain, join, lengths, read
from networks import mlp, normal

LAYERS = 3


def linear(inputs=WIDTH, outputs=WIDTH):
    return nn.Linear(inputs, outputs)


def several(make=mlp, count=LAYERS, width=WIDTH):
    return nn.ModuleList(make(width) for _ in range(count))


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


def of_injected():
    h = START
    for k in range(LAYERS):
        h = read(chain(f"f{k}", h), START)
    return lengths(h)


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
    h = chain("f0")
    h = read(chain("f1", h), START)
    return lengths(read(chain("f2", h), START))


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
    seen, h = [START], START
    for k in range(LAYERS):
        seen.append(chain(f"f{k}", h))
        h = read(*seen)
    return lengths(h)


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


FS = "f0 f1 f2"
LAYERS_READ = "", "f0", "f0 f1", "f0 f1 f2"
OF_ALL_LAYERS = lengths(read(*map(chain, LAYERS_READ)))
CASES = {
    "stages that are outputs": Known(one(stages), FS, binomials(3)),
    "stages of a branch that are outputs": Known(
        one(stages_of_a_branch, into=linear()), "f0 f1 outer", lengths(join("outer", START, chain("f0 f1")))
    ),
    # Open: h3 + h4 is 2 h3 + f2(h3), as h4 is read nowhere else; then the last skip is 2 h3, and a projection.
    "several depths": Known(
        one(several_depths),
        FS,
        lengths(read(*map(chain, ("", "f0 f1", FS)))),
        or_counts=lengths(read(*map(chain, ("", FS)))),
        skips="identity identity identity|projection",
        refused=("h1 + h3 + h4",),
    ),
    "several depths of four blocks": Known(
        one(several_of_four, f=several(count=4)),
        "f0 f1 f2 f3",
        lengths(read(*map(chain, ("f0", "f0 f1 f2", "f0 f1 f2 f3")))),
        or_counts=lengths(read(*map(chain, ("f0", "f0 f1 f2 f3")))),
        skips="identity identity identity identity|projection",
        refused=("h[1] + h[3] + h[4]",),
    ),
    "an input injected again": Known(one(injected), FS, of_injected(), refused=("u + 0.3 * x",)),
    "an input injected in one sum": Known(one(injected_in_one_sum), FS, of_injected(), refused=("+ 0.3 * x",)),
    # Open: the first layer's 0.3 x is collected into S = 1.3, so there is one path and not two.
    "an input injected itself": Known(
        one(injected_itself), FS, of_injected_itself(), skips="projection identity identity", refused=("+ 0.3 * x",)
    ),
    "an average of all layers": Known(
        one(averaged, w=nn.Parameter(normal(4))), FS, OF_ALL_LAYERS, refused=("net.w[0] * h[0]",)
    ),
    "DenseFormer": Known(
        one(dense_former, w=nn.Parameter(normal(LAYERS, LAYERS + 1))),
        FS,
        of_dense_former(),
        refused=("sum(net.w[k, i]",),
    ),
    "deep supervision": Known(one(supervised, **heads(4)), FS, OF_ALL_LAYERS, refused=("total + net.heads",)),
    "deep supervision, summed at the end": Known(
        one(supervised_at_the_end, **heads(3)),
        FS,
        lengths(read(*map(chain, LAYERS_READ[1:]))),
        refused=("outputs[0] +",),
    ),
}

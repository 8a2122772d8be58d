"""Concatenations whose operands are a tensor and what is computed from it: known answers.

h ← [h, f(h)]        the sum of both, each embedded in zeros: the skip keeps its channels, the branch adds some
"""

import pytest
import torch
from torch import cat, nn, sigmoid
from torch.nn import functional as F  # noqa: N812

from kinds.known import CHECKS, ROWS, WIDTH, WORDS, Known
from kinds.polynomials import ONE, binomials, plus, t
from kinds.told import Told
from marks import quick
from networks import Chain, Residual, lively, mlp, normal
from unbraid import trace
from unbraid.errors import NotResidualError

LAYERS, GROWTH = 3, 2
FS = "f0 f1 f2"
IMAGES = normal(2, 2, 4, 4, seed=1)


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs)


# --- DenseNet ---------------------------------------------------------------------------------------------------------


def dense(story, reference=None, **parts):
    widths = [WIDTH + GROWTH * k for k in range(LAYERS + 1)]
    f = nn.ModuleList(mlp(width, 5, GROWTH) for width in widths[:-1])
    return lambda: Told(story, reference, **{"f": f, "head": linear(widths[-1], 3), **parts})


def growing(net, mark, x):
    """One tensor that grows."""
    for k in range(LAYERS):
        x = cat([x, mark(f"f{k}", net.f[k](x))], -1)
    return net.head(x)


def branch_first(net, mark, x):
    for k in range(LAYERS):
        x = cat([mark(f"f{k}", net.f[k](x)), x], -1)
    return net.head(x)


def listed(net, mark, x):
    """A list that each layer concatenates anew, as torchvision's."""
    features = [x]
    for k in range(LAYERS):
        features.append(mark(f"f{k}", net.f[k](cat(features, 1))))
    return net.head(cat(features, 1))


def listed_from_the_end(net, mark, x):
    features = [x]
    for k in range(LAYERS):
        features = [mark(f"f{k}", net.f[k](cat(features, 1))), *features]
    return net.head(cat(features, 1))


def stacked_sideways(net, mark, x):
    for k in range(LAYERS):
        x = torch.hstack((x, net.f[k](x)))
    return net.head(x)


def written(net, mark, x):
    """Into slices of a tensor of zeros."""
    for k in range(LAYERS):
        width = x.shape[1]
        h = x.new_zeros(x.shape[0], width + GROWTH)
        h[:, :width] = x
        h[:, width:] = net.f[k](x)
        x = h
    return net.head(x)


def in_transit(net, mark, x):
    """Blocks of two dense layers, and after each a transition to half the width."""
    for k in range(4):
        x = cat([x, mark(f"f{k}", net.f[k](x))], -1)
        if k % 2:
            x = net.transition[k // 2](x)
    return net.head(x)


def transits():
    f = nn.ModuleList(mlp(width, 5, GROWTH) for width in (4, 6, 4, 6))
    return {"f": f, "transition": nn.ModuleList(linear(8, 4) for _ in range(2)), "head": linear(4, 3)}


def of_images(net, mark, x):
    """Norm, activation, convolution; the features of all layers pooled."""
    features = [x]
    for k in range(LAYERS):
        features.append(mark(f"f{k}", net.f[k](cat(features, 1))))
    return net.head(cat(features, 1).mean((2, 3)))


def dense_layers():
    widths = [2 + GROWTH * k for k in range(LAYERS + 1)]
    layers = [nn.Sequential(nn.BatchNorm2d(w), nn.SiLU(), nn.Conv2d(w, GROWTH, 3, padding=1)) for w in widths[:-1]]
    return {"f": nn.ModuleList(layers), "head": linear(widths[-1], 3)}


def concatenated(make, names=FS, counts=None, **more):
    return Known(make, names, counts or binomials(len(names.split())), joins="concatenation", **more)


DENSE = {
    "growing": concatenated(dense(growing)),
    "branch first": concatenated(dense(branch_first)),
    "a list": concatenated(dense(listed)),
    "a list from the end": concatenated(dense(listed_from_the_end)),
    "hstack": concatenated(dense(stacked_sideways, growing)),
    # Open: whether what is written into slices of zeros is called a concatenation, or a sum of what is padded.
    "slices": Known(
        dense(written, growing), FS, binomials(LAYERS), skips="identity|projection", joins="concatenation|sum"
    ),
    "transitions": concatenated(dense(in_transit, **transits()), "f0 f1 f2 f3"),
    "of images": concatenated(dense(of_images, **dense_layers()), inputs=(IMAGES,)),
}


# --- layers side by side, and all at once -----------------------------------------------------------------------------


def one_shot(net, mark, x):
    """VoVNet: each module concatenates its input and all its layers, one after the other, once."""
    for k in range(2):
        features = [x]
        for f in net.f[3 * k : 3 * k + 3]:
            features.append(f(features[-1]))
        x = net.down[k](cat([x, *(mark(f"m{k}", value) for value in features[1:])], 1))
    return net.head(x)


def one_shot_and_identity(net, mark, x):
    """VoVNetV2: and adds its input once more."""
    for k in range(2):
        a = net.f[3 * k](x)
        b = net.f[3 * k + 1](a)
        inner = cat([x, mark(f"m{k}", a), mark(f"m{k}", b)], 1)
        x = x + mark(f"outer{k}", net.down[k](inner))
    return net.head(x)


def vov(story, width):
    f = nn.ModuleList(mlp(WIDTH) for _ in range(6))
    down = nn.ModuleList(linear(width, WIDTH) for _ in range(2))
    return lambda: Told(story, f=f, down=down, head=linear(WIDTH, 3))


def dual_path(net, mark, x):
    """DPN: of each layer's output some channels are added to one trunk, and some lengthen the other."""
    s, d = net.s(x), net.d(x)
    for k in range(LAYERS):
        z = net.f[k](cat([s, d], 1))
        s = s + mark(f"s{k}", z[:, :WIDTH])
        d = cat([d, mark(f"d{k}", z[:, WIDTH:])], 1)
    return net.head(cat([s, d], 1))


def dual_path_parts():
    widths = [WIDTH + GROWTH * (k + 1) for k in range(LAYERS + 1)]
    f = nn.ModuleList(mlp(width, 5, WIDTH + GROWTH) for width in widths[:-1])
    return {"s": linear(WIDTH, WIDTH), "d": linear(WIDTH, GROWTH), "f": f, "head": linear(widths[-1], 3)}


def of_dual_path():
    s = d = ONE
    for _ in range(LAYERS):
        s, d = plus(s, t(plus(s, d))), plus(d, t(plus(s, d)))
    return plus(s, d)


def c2f(shortcut, bottlenecks):
    """YOLOv8: halves of u; one goes through bottlenecks, of which each one's output is kept."""

    def story(net, mark, x):
        y = list(net.into(x).chunk(2, 1))
        for k in range(bottlenecks):
            z = net.f[k](y[-1])
            y.append(y[-1] + mark(f"f{k}", z) if shortcut else z)
        return net.head(cat([*y[:2], *(mark("all", value) for value in y[2:])], 1))

    half = WIDTH // 2
    f = nn.ModuleList(mlp(half) for _ in range(bottlenecks))
    return lambda: Told(story, into=linear(WIDTH, WIDTH), f=f, head=linear(half * (2 + bottlenecks), 3))


def c2f_of_sums(net, mark, x):
    """With two bottlenecks that have shortcuts the concatenation reads one trunk at three depths."""
    y0, y1 = net.into(x).chunk(2, 1)
    y2 = y1 + mark("f0", net.f[0](y1))
    y3 = y2 + mark("f1", net.f[1](y2))
    return net.head(cat([y0, y1, y2, y3], 1))


def sage(net, mark, x):
    """GraphSAGE: [h, mean of what the neighbours say]. Its paper calls this a simple form of a skip connection."""
    for k in range(LAYERS):
        spoken = net.neighbours @ net.f[k](x)
        x = net.down[k](cat([x, mark(f"f{k}", spoken)], -1))
    return net.head(x.mean(1))


def sage_parts():
    down = nn.ModuleList(linear(2 * WIDTH, WIDTH) for _ in range(LAYERS))
    return {
        "neighbours": nn.Parameter(normal(3, 3)),
        "f": nn.ModuleList(mlp(WIDTH) for _ in range(LAYERS)),
        "down": down,
        "head": linear(WIDTH, 3),
    }


def gated_concatenation(net, mark, x):
    for k in range(LAYERS):
        gate = sigmoid(net.gate[k](x))
        x = cat([mark.gate(f"f{k}", gate) * x, mark(f"f{k}", net.f[k](x))], -1)
    return net.head(x)


def gates():
    return {"gate": nn.ModuleList(linear(w, w) for w in (WIDTH + GROWTH * k for k in range(LAYERS)))}


OTHERS = {
    "VoVNet": concatenated(vov(one_shot, 4 * WIDTH), "m0 m1", [1, 6, 9], branches=(3, 3)),
    "VoVNetV2": Known(
        vov(one_shot_and_identity, 3 * WIDTH),
        "outer0 outer1",
        binomials(2),
        nested={"m0": "outer0", "m1": "outer1"},
        nested_joins="concatenation",
        opened=[4, 8, 4],
    ),
    "DPN": Known(
        dense(dual_path, **dual_path_parts()),
        "s0 d0 s1 d1 s2 d2",
        of_dual_path(),
        joins="sum concatenation sum concatenation sum concatenation",
    ),
    "C2f": concatenated(c2f(False, 2), "all", [1, 2], branches=(2,)),
    "C2f of one bottleneck with a shortcut": concatenated(
        c2f(True, 1), "all", [1, 1], nested={"f0": "all"}, nested_skips="identity|projection", opened=[2, 1]
    ),
    "GraphSAGE": concatenated(dense(sage, **sage_parts()), inputs=(WORDS,)),
    "a gated concatenation": concatenated(dense(gated_concatenation, **gates()), skips="gate"),
}


# --- U-Nets -----------------------------------------------------------------------------------------------------------


def descend(net, mark, x, level, join):
    if level == len(net.up):
        return net.bottom(x)
    e = net.encode[level](x)
    u = net.up[level](descend(net, mark, e, level + 1, join))
    return net.decode[level](join(e, mark(f"u{level}", u)))


JOINS = {"cat": lambda e, u: cat([e, u], 1), "turned": lambda e, u: cat([u, e], 1), "sum": lambda e, u: e + u}


def unet(levels, how="cat"):
    """The first encoder and the last decoder are linear, so that the path of skips alone is known by autograd."""
    wide = WIDTH if how == "sum" else 2 * WIDTH

    def story(net, mark, x):
        return net.head(descend(net, mark, x, 0, JOINS[how]))

    def inner(first, rest):
        return nn.ModuleList([first, *(rest() for _ in range(levels - 1))])

    parts = {
        "encode": inner(linear(WIDTH, WIDTH), lambda: mlp(WIDTH)),
        "up": inner(mlp(WIDTH), lambda: mlp(WIDTH)),
        "decode": inner(linear(wide, WIDTH), lambda: mlp(wide, WIDTH, WIDTH)),
        "bottom": mlp(WIDTH),
        "head": linear(WIDTH, 3),
    }
    return lambda: Told(story, **parts)


def nest(levels):
    """The innermost runs first."""
    return {f"u{level}": f"u{level - 1}" for level in range(levels - 1, 0, -1)}


def of_levels(levels, how="cat"):
    join = "sum" if how == "sum" else "concatenation"
    return Known(
        unet(levels, how),
        "u0",
        [1, 1],
        joins=join,
        nested=nest(levels),
        nested_joins=join,
        opened=[levels, 1],
    )


def unet_of_images(net, mark, x):
    """Two levels, pooled and enlarged."""
    e0 = net.encode[0](x)
    e1 = F.silu(net.encode[1](F.max_pool2d(e0, 2)))
    low = F.silu(net.bottom(F.max_pool2d(e1, 2)))
    inner = cat([e1, mark("u1", F.interpolate(low, scale_factor=2.0))], 1)
    d1 = F.silu(net.decode[0](inner))
    outer = cat([e0, mark("u0", F.interpolate(d1, scale_factor=2.0))], 1)
    return net.head(net.decode[1](outer).mean((2, 3)))


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def unet_parts():
    return {
        "encode": nn.ModuleList([conv(2, 2), conv(2, 3)]),
        "bottom": conv(3, 3),
        "decode": nn.ModuleList([conv(6, 2), conv(4, 2)]),
        "head": linear(2, 3),
    }


UNETS = {
    **{f"U-Net of {levels} levels": of_levels(levels) for levels in range(1, 5)},
    "U-Net, turned": of_levels(2, "turned"),
    "LinkNet": of_levels(3, "sum"),
    "U-Net of images": concatenated(
        dense(unet_of_images, **unet_parts()),
        "u0",
        [1, 1],
        inputs=(IMAGES,),
        nested=nest(2),
        nested_joins="concatenation",
        opened=[2, 1],
    ),
}

CASES = {**DENSE, **OTHERS, **UNETS}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", quick(CASES, *CASES))
def test_a_known_answer(name, check):
    check(CASES[name])


@pytest.mark.parametrize("check", [check for check in CHECKS if check.__name__ != "counts"], ids=lambda c: c.__name__)
def test_c2f_of_two_bottlenecks_with_shortcuts(check):
    """As a head on h1 + h3 + h4: no block more. Open: whether the half that waits is one way to the head, or two."""
    check(TWO_BOTTLENECKS)


TWO_BOTTLENECKS = Known(
    dense(c2f_of_sums, into=linear(4, 4), f=nn.ModuleList(mlp(2) for _ in range(2)), head=linear(8, 3)),
    "f0 f1",
    [3, 3, 1],
    skips="identity|projection identity",
    refused=("cat([y0, y1, y2, y3]",),
)


def inception(net, x):
    return cat([net.a(x), F.avg_pool1d(x[:, None], 3, stride=1, padding=1)[:, 0]], 1)


def inception_of_branches(net, x):
    return cat([torch.tanh(net.a(x)), torch.tanh(net.b(x))], 1)


def coupling(net, x):
    """ShuffleNet's unit: one half waits, the other is changed."""
    a, b = x.chunk(2, 1)
    return cat([a, torch.tanh(net.c(b))], 1)


def both_signs(net, x):
    """CReLU."""
    return torch.relu(cat([x, -x], 1))


NONE = {"Inception": inception, "two branches": inception_of_branches, "a half": coupling, "both signs": both_signs}


@pytest.mark.parametrize("name", NONE)
def test_these_are_none(name):
    """Alone there is no block; beside a residual block there is that one, and the concatenation has its reason."""

    def story(net, mark, x):
        return NONE[name](net, x)

    model = lively(Told(story, a=linear(WIDTH, WIDTH), b=linear(WIDTH, WIDTH), c=linear(2, 2)))
    with pytest.raises(NotResidualError) as caught:
        trace(model, ROWS)
    width = model(ROWS).shape[1]
    form = trace(lively(Chain(model, Residual(mlp(width)))), ROWS)
    assert [(b.name, b.skip, b.join) for b in form.all_blocks] == [("blocks.1", "identity", "sum")]
    assert len(form.refusals) == len(caught.value.refusals) == 1

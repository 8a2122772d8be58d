"""DenseNets, one tensor that grows or a list that is concatenated anew: known answers.

h ← [h, f(h)]        the sum of both, each embedded in zeros: the skip keeps its channels, the branch adds some
"""

import torch
from torch import cat, nn

from kinds.known import WIDTH, Known
from kinds.told import Told
from kinds.trails import binomials
from networks import mlp, normal

LAYERS, GROWTH = 3, 2
FS = "f0 f1 f2"
IMAGES = normal(2, 2, 4, 4, seed=1)


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs)


def dense(story, reference=None, **parts):
    widths = [WIDTH + GROWTH * k for k in range(LAYERS + 1)]
    f = nn.ModuleList(mlp(width, 5, GROWTH) for width in widths[:-1])
    return lambda: Told(story, reference, **{"f": f, "head": linear(widths[-1], 3), **parts})


def growing(net, mark, x):
    """One tensor that grows."""
    for k in range(LAYERS):
        x = cat([mark.skip(f"f{k}", x), mark(f"f{k}", net.f[k](x))], -1)
    return net.head(x)


def branch_first(net, mark, x):
    for k in range(LAYERS):
        x = cat([mark(f"f{k}", net.f[k](x)), x], -1)
    return net.head(x)


def gated(net, mark, x):
    """What is carried is multiplied by a gate: [σ(W h)·h, f(h)]."""
    for k in range(LAYERS):
        t = mark.gate(f"f{k}", torch.sigmoid(net.t[k](x)))
        x = cat([mark.skip(f"f{k}", t * x), mark(f"f{k}", net.f[k](x))], -1)
    return net.head(x)


def gates():
    return nn.ModuleList(linear(WIDTH + GROWTH * k, WIDTH + GROWTH * k) for k in range(LAYERS))


def gated_two_branches(net, mark, x):
    """The second branch lies before the skip."""
    for k in range(LAYERS):
        t = mark.gate(f"f{k}", torch.sigmoid(net.t[k](x)))
        f = net.f[k](x)
        x = cat([mark(f"f{k}", f[:, 1:]), mark.skip(f"f{k}", t * x), mark(f"f{k}", f[:, :1])], -1)
    return net.head(x)


def into_zeros(net, mark, x):
    for k in range(LAYERS):
        width = x.shape[1]
        y = x.new_zeros(x.shape[0], width + GROWTH)
        y[:, :width] = x
        y[:, width:] = net.f[k](x)
        x = y
    return net.head(x)


def over_what_was_written(net, mark, x):
    """The last columns are written first, and twice."""
    for k in range(LAYERS):
        y = torch.empty(x.shape[0], x.shape[1] + GROWTH, dtype=x.dtype)
        y[:, -GROWTH:] = 1.0
        y[:, -GROWTH:] = net.f[k](x)
        y[:, :-GROWTH] = x
        x = y
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


CASES = {
    "growing": concatenated(dense(growing)),
    "branch first": concatenated(dense(branch_first)),
    "a list": concatenated(dense(listed)),
    "a list from the end": concatenated(dense(listed_from_the_end)),
    "hstack": concatenated(dense(stacked_sideways, growing)),
    "gated": concatenated(dense(gated, t=gates()), skips="gate"),
    "gated, between two branches": concatenated(
        dense(gated_two_branches, t=gates()), counts=[1, 6, 12, 8], skips="gate", branches=(2, 2, 2)
    ),
    "into zeros": concatenated(dense(into_zeros, growing)),
    "over what was written": concatenated(dense(over_what_was_written, growing)),
    "transitions": concatenated(dense(in_transit, **transits()), "f0 f1 f2 f3"),
    "of images": concatenated(dense(of_images, **dense_layers()), inputs=(IMAGES,)),
}

"""U-Nets: each level is a block, whose branch holds all deeper ones."""

from torch import cat, nn, sigmoid
from torch.nn import functional as F  # noqa: N812

from kinds.dense import IMAGES, concatenated, dense, linear
from kinds.known import WIDTH, Known
from kinds.told import Told
from networks import mlp


def descend(net, mark, x, level, join):
    if level == len(net.up):
        return net.bottom(x)
    e = net.encode[level](x)
    u = net.up[level](descend(net, mark, e, level + 1, join))
    return net.decode[level](join(mark.skip(f"u{level}", e), mark(f"u{level}", u)))


def attentive(net, mark, x, level):
    """Attention U-Net: what is carried is multiplied by a gate that reads what comes from below."""
    if level == len(net.up):
        return net.bottom(x)
    name, e = f"u{level}", net.encode[level](x)
    u = net.up[level](attentive(net, mark, e, level + 1))
    t = mark.gate(name, sigmoid(net.gate[level](u)))
    return net.decode[level](cat([mark.skip(name, t * e), mark(name, u)], 1))


JOINS = {"cat": lambda e, u: cat([e, u], 1), "turned": lambda e, u: cat([u, e], 1), "sum": lambda e, u: e + u}


def unet(levels, how="cat"):
    """The first encoder and the last decoder are linear, so that the path of skips alone is known by autograd."""
    wide = WIDTH if how == "sum" else 2 * WIDTH

    def story(net, mark, x):
        return net.head(attentive(net, mark, x, 0) if how == "gate" else descend(net, mark, x, 0, JOINS[how]))

    def inner(first, rest):
        return nn.ModuleList([first, *(rest() for _ in range(levels - 1))])

    parts = {
        "encode": inner(linear(WIDTH, WIDTH), lambda: mlp(WIDTH)),
        "up": inner(mlp(WIDTH), lambda: mlp(WIDTH)),
        "decode": inner(linear(wide, WIDTH), lambda: mlp(wide, WIDTH, WIDTH)),
        "bottom": mlp(WIDTH),
        "head": linear(WIDTH, 3),
    }
    if how == "gate":
        parts["gate"] = nn.ModuleList(linear(WIDTH, WIDTH) for _ in range(levels))
    return lambda: Told(story, **parts)


def nest(levels):
    """The innermost runs first."""
    return {f"u{level}": f"u{level - 1}" for level in range(levels - 1, 0, -1)}


def of_gates(levels):
    """What comes from below is read twice, by the branch and by its gate, and the gate's derivative reads the skip."""
    counts = [1, 1]
    for _ in range(levels - 1):
        counts = [2 + 2 * counts[0], 2 * counts[1]]
    return counts


def of_levels(levels, how="cat"):
    skips = "gate" if how == "gate" else "identity"
    join = "sum" if how == "sum" else "concatenation"
    return Known(
        unet(levels, how),
        "u0",
        [1, 1],
        joins=join,
        skips=skips,
        nested_skips=skips,
        nested=nest(levels),
        nested_joins=join,
        opened=[levels, 1] if how != "gate" else of_gates(levels),
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


CASES = {
    **{f"{levels} levels": of_levels(levels) for levels in range(1, 5)},
    "turned": of_levels(2, "turned"),
    **{f"{levels} levels with gates": of_levels(levels, "gate") for levels in (1, 2, 3)},
    "LinkNet": of_levels(3, "sum"),
    "of images": concatenated(
        dense(unet_of_images, **unet_parts()),
        "u0",
        [1, 1],
        inputs=(IMAGES,),
        nested=nest(2),
        nested_joins="concatenation",
        opened=[2, 1],
    ),
}

"""Concatenations of a tensor and of what is computed from it, side by side or in turn: known answers."""

import torch
from torch import cat, nn

from kinds.dense import GROWTH, LAYERS, concatenated, dense, linear
from kinds.known import WIDTH, WORDS, Known
from kinds.told import Told
from kinds.trails import START, binomials, join, lengths, read
from kinds.two_trunks import EDGES, NODES, of_graph_network
from networks import mlp, normal


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
    s = d = START
    for k in range(LAYERS):
        z = read(s, d)
        s, d = join(f"s{k}", s, z), join(f"d{k}", d, z)
    return lengths(read(s, d))


def c2f(net, mark, x):
    """YOLOv8: halves of u; one goes through bottlenecks, of which each one's output is kept. Here without shortcuts."""
    y0, y1 = net.into(x).chunk(2, 1)
    y2 = net.f[0](y1)
    y3 = net.f[1](y2)
    return net.head(cat([y0, y1, mark("all", y2), mark("all", y3)], 1))


def c2f_with_shortcuts(count, block):
    """The same with shortcuts, where the concatenation is a block around all bottlenecks, or is none."""

    def story(net, mark, x):
        y = list(net.into(x).chunk(2, 1))
        for k in range(count):
            y.append(y[-1] + mark(f"f{k}", net.f[k](y[-1])))
        return net.head(cat([*y[:2], *(mark("all", value) if block else value for value in y[2:])], 1))

    return bottlenecks(story, count)


def bottlenecks(story, count):
    half = WIDTH // 2
    f = nn.ModuleList(mlp(half) for _ in range(count))
    return lambda: Told(story, into=linear(WIDTH, WIDTH), f=f, head=linear(half * (2 + count), 3))


def sage(net, mark, x):
    """GraphSAGE: [h, mean of what the neighbours say]. Its paper calls this a simple form of a skip connection."""
    for k in range(LAYERS):
        spoken = net.neighbours @ net.f[k](x)
        x = net.down[k](cat([x, mark(f"f{k}", spoken)], -1))
    return net.head(x.mean(1))


def stacked(spelling):
    """A stack of h and f(h), of which all is read."""

    def story(net, mark, x):
        for k in range(LAYERS):
            x = net.down[k](spelling(x, mark(f"f{k}", net.f[k](x))))
        return net.head(x)

    return story


def stacked_parts():
    down = nn.ModuleList(linear(2 * WIDTH, WIDTH) for _ in range(LAYERS))
    return {"f": nn.ModuleList(mlp(WIDTH) for _ in range(LAYERS)), "down": down, "head": linear(WIDTH, 3)}


def written_in_turn(x, f):
    y = torch.empty(x.shape[0], 2, WIDTH, dtype=x.dtype)
    y[:, 0] = x
    y[:, 1] = f
    return y.flatten(1)


def sage_parts():
    down = nn.ModuleList(linear(2 * WIDTH, WIDTH) for _ in range(LAYERS))
    return {
        "neighbours": nn.Parameter(normal(3, 3)),
        "f": nn.ModuleList(mlp(WIDTH) for _ in range(LAYERS)),
        "down": down,
        "head": linear(WIDTH, 3),
    }


def graph_network(net, mark, nodes, edges):
    """Messages that are concatenated: [e, h_i, h_j] for the edges, [h, mean of e] for the nodes."""
    h, e = nodes, edges
    for k in range(LAYERS):
        ends = cat([h[:, :, None].expand_as(e), h[:, None].expand_as(e)], -1)
        e = e + mark(f"E{k}", net.f[k](cat([e, ends], -1)))
        h = h + mark(f"N{k}", net.g[k](cat([h, e.mean(2)], -1)))
    return net.head(h.mean(1))


def graph_network_parts():
    return {
        "f": nn.ModuleList(mlp(3 * WIDTH, 5, WIDTH) for _ in range(LAYERS)),
        "g": nn.ModuleList(mlp(2 * WIDTH, 5, WIDTH) for _ in range(LAYERS)),
        "head": linear(WIDTH, 3),
    }


CASES = {
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
    # Open: the half y0 that waits is the trunk beside the block, or a part of the skip.
    "C2f": concatenated(bottlenecks(c2f, 2), "all", [1, 2], branches=(2,), or_counts=[2, 2]),
    "a stack": concatenated(dense(stacked(lambda x, f: torch.stack([x, f], 1).flatten(1)), **stacked_parts())),
    "a stack, written in turn": concatenated(dense(stacked(written_in_turn), **stacked_parts())),
    "GraphSAGE": concatenated(dense(sage, **sage_parts()), inputs=(WORDS,)),
    # Open: [h, mean of e], where e reads h, is by the letter a concatenated block inside of the nodes' branch.
    "nodes and edges": Known(
        dense(graph_network, **graph_network_parts()),
        "E0 N0 E1 N1 E2 N2",
        of_graph_network(LAYERS),
        inputs=(NODES, EDGES),
        unsettled=True,
    ),
}

# C2f with shortcuts: open. As h1 + h3 + h4 the concatenation reads one trunk at several depths, and is no block; by the
# letter it is a skip over whole blocks, x + rest(x). By the number of bottlenecks: what is then known of each reading.
NO_BLOCK = {
    1: Known(c2f_with_shortcuts(1, block=False), "f0", [2, 1], skips="identity|projection"),
    2: Known(c2f_with_shortcuts(2, block=False), "f0 f1", [3, 3, 1], skips="identity|projection identity"),
}
A_BLOCK = {
    1: concatenated(
        c2f_with_shortcuts(1, block=True),
        "all",
        [1, 1],
        nested={"f0": "all"},
        nested_skips="identity|projection",
        opened=[2, 1],
        or_counts=[2, 1],
        or_opened=[3, 1],
    ),
    2: concatenated(
        c2f_with_shortcuts(2, block=True),
        "all",
        [1, 2],
        branches=(2,),
        nested={"f0": "all", "f1": "all"},
        nested_skips="identity|projection identity",
        opened=[3, 3, 1],
        or_counts=[2, 2],
        or_opened=[4, 3, 1],
    ),
}

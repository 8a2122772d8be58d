"""Graphs built by hand, each beside the same network told as plain code: the outside oracle of the walk.

A story is the network's forward code, written with two verbs: `apply(f, *arguments)` and `add(block, skip, *branches)`.
What the verbs mean decides what comes out: values (`Plain`), the gradient along chosen operands alone (`Gated`), or
the choices of every path (`Trails`). None of it knows Graph, walk or any algebra.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, fx

from networks import F64, normal
from unbraid.graph import Add, Graph, Segment, Stream

Choice = frozenset[tuple[int, int]]


class Plain:
    """The network as it is."""

    def apply(self, function, *arguments, outputs=1):
        return function(*arguments)

    def add(self, block, *operands):
        return sum(operand for operand in operands if operand is not None)


class Gated(Plain):
    """The same values, but a gradient passes each counted addition through the chosen operand alone, if any."""

    def __init__(self, choice: Choice, counted) -> None:
        self.choice, self.counted = choice, counted

    def add(self, block, *operands):
        if block not in self.counted:
            return super().add(block, *operands)
        return sum(
            operand if (block, j) in self.choice else operand.detach()
            for j, operand in enumerate(operands, start=-1)
            if operand is not None
        )


class Trails:
    """Instead of a tensor the set of all paths from the source, each the set of its choices."""

    def __init__(self, counted) -> None:
        self.counted = counted

    def apply(self, function, *arguments, outputs=1):
        met = frozenset().union(*(a for a in arguments if isinstance(a, frozenset)))
        return met if outputs == 1 else (met,) * outputs

    def add(self, block, *operands):
        trails = set()
        for j, operand in enumerate(operands, start=-1):
            for trail in operand or ():
                trails.add(trail | {(block, j)} if block in self.counted else trail)
        return frozenset(trails)


@dataclass(frozen=True)
class Example:
    """A graph built by hand and the story that it must follow.

    Attributes:
        graph: the graph.
        state: its parameters.
        inputs: a value for each input stream.
        story: (verbs, inputs, state) -> the value of the graph's output.
        weights: for each block that is counted, what each of its branches adds to a path's length.
    """

    graph: Graph
    state: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]
    story: Callable[..., Any]
    weights: Mapping[int, tuple[int, ...]]

    def output(self) -> Tensor:
        return self.story(Plain(), self.inputs, self.state)

    def gradient(self, source: str, cotangent: Tensor, verbs: Plain) -> Tensor:
        """autograd on the story."""
        inputs = {**self.inputs, source: self.inputs[source].clone().requires_grad_()}
        output = self.story(verbs, inputs, self.state)
        if not output.requires_grad:
            return torch.zeros_like(self.inputs[source])
        (found,) = torch.autograd.grad(output, inputs[source], cotangent, allow_unused=True)
        return torch.zeros_like(self.inputs[source]) if found is None else found

    def trails(self, source: str) -> frozenset[Choice]:
        """The choices of every path from one source to the output."""
        begin = {s: frozenset({frozenset()}) if s == source else frozenset() for s in self.inputs}
        return self.story(Trails(self.weights), begin, self.state)

    def paths(self, source: str, cotangent: Tensor) -> dict[Choice, Tensor]:
        """The gradient along every path, by brute force over the choices.

        Opening the gates of one path also lets through those that meet fewer blocks and agree on them: taken off.
        """
        values: dict[Choice, Tensor] = {}
        for trail in sorted(self.trails(source), key=len):
            opened = self.gradient(source, cotangent, Gated(trail, self.weights))
            values[trail] = opened - sum(value for other, value in values.items() if other < trail)
        return values

    def length(self, trail: Choice) -> int:
        return sum(self.weights[block][j] for block, j in trail if j >= 0)

    def longest(self) -> int:
        return max(self.length(trail) for source in self.graph.sources for trail in self.trails(source))

    def by_length(self, source: str, cotangent: Tensor) -> Tensor:
        """The brute-force values, summed by length."""
        total = torch.zeros((self.longest() + 1, *self.inputs[source].shape), dtype=F64)
        for trail, value in self.paths(source, cotangent).items():
            total[self.length(trail)] += value
        return total


def graph(steps, inputs, outputs, sources=None) -> Graph:
    """Every stream in float64, sources the inputs."""
    names = {*inputs, *(s for step in steps for s in (step.outputs if isinstance(step, Segment) else (step.output,)))}
    return Graph({s: Stream(s, dtype=F64) for s in names}, tuple(steps), inputs, sources or inputs, outputs)


def dense(h, weight):
    """A branch that is not linear."""
    return torch.tanh(h @ weight)


def norm(h):
    """A norm without parameters; it mixes the features of each example."""
    return h / (1e-3 + (h * h).mean(-1, keepdim=True)).sqrt()


def matrices(*names: str, width: int = 3) -> dict[str, Tensor]:
    return {name: normal(width, width, seed=seed) for seed, name in enumerate(names, start=10)}


def branch(end, start, weight, block, j=0, code=dense) -> Segment:
    return Segment(end, (start,), (end,), code, (weight,), "branch", block, j)


def chain(count: int, width: int = 3) -> Example:
    """h_k = h_{k−1} + tanh(h_{k−1} W_k), and a head."""
    names = [f"w{k}" for k in range(count)]
    steps: list[Any] = []
    for k in range(count):
        steps += [
            branch(f"f{k}", f"h{k}", names[k], k),
            Add(k, f"h{k}", f"h{k}", (f"f{k}",), f"h{k + 1}"),
        ]
    steps.append(Segment("y", (f"h{count}",), ("y",), dense, ("head",)))

    def story(net, x, state):
        h = x["h0"]
        for k in range(count):
            h = net.add(k, h, net.apply(dense, h, state[f"w{k}"]))
        return net.apply(dense, h, state["head"])

    return Example(
        graph(steps, ("h0",), ("y",)),
        matrices(*names, "head", width=width),
        {"h0": normal(2, width)},
        story,
        dict.fromkeys(range(count), (1,)),
    )


def scalar_chain(count: int) -> Example:
    """The toy for teachers: scalar blocks h_k = h_{k−1} + sin(a_k h_{k−1}), each an fx.GraphModule."""

    class Sine(torch.nn.Module):
        def forward(self, h, a):
            return torch.sin(a * h)

    code = fx.symbolic_trace(Sine())
    steps: list[Any] = []
    for k in range(count):
        steps += [
            branch(f"f{k}", f"h{k}", f"a{k}", k, code=code),
            Add(k, f"h{k}", f"h{k}", (f"f{k}",), f"h{k + 1}"),
        ]

    def story(net, x, state):
        h = x["h0"]
        for k in range(count):
            h = net.add(k, h, net.apply(lambda h, a: torch.sin(a * h), h, state[f"a{k}"]))
        return h

    state = {f"a{k}": torch.tensor(0.3 + 0.4 * k, dtype=F64) for k in range(count)}
    last = (f"h{count}",)
    return Example(
        graph(steps, ("h0",), last),
        state,
        {"h0": torch.tensor(0.7, dtype=F64)},
        story,
        dict.fromkeys(range(count), (1,)),
    )


def plain(count: int = 3) -> Example:
    """h_k = f_k(h_{k−1}): additions of one operand, Equation 11.1."""
    steps: list[Any] = []
    for k in range(count):
        steps += [branch(f"f{k}", f"h{k}", f"w{k}", k), Add(k, f"h{k}", None, (f"f{k}",), f"h{k + 1}")]

    def story(net, x, state):
        h = x["h0"]
        for k in range(count):
            h = net.add(k, None, net.apply(dense, h, state[f"w{k}"]))
        return h

    return Example(
        graph(steps, ("h0",), (f"h{count}",)),
        matrices(*(f"w{k}" for k in range(count))),
        {"h0": normal(2, 3)},
        story,
        dict.fromkeys(range(count), (1,)),
    )


def parallel() -> Example:
    """GPT-J: attention and MLP side by side behind one norm, between two ordinary blocks with a norm on the trunk."""
    steps = [
        branch("f", "x", "w0", 0),
        Add(0, "x", "x", ("f",), "h1"),
        Segment("n", ("h1",), ("n",), norm, (), "branch", 1, None),
        branch("attn", "n", "w1", 1, 0),
        branch("mlp", "n", "w2", 1, 1),
        Add(1, "h1", "h1", ("attn", "mlp"), "s1"),
        Segment("h2", ("s1",), ("h2",), norm),
        branch("g", "h2", "w3", 2),
        Add(2, "h2", "h2", ("g",), "y"),
    ]

    def story(net, x, w):
        h = net.add(0, x["x"], net.apply(dense, x["x"], w["w0"]))
        n = net.apply(norm, h)
        h = net.apply(norm, net.add(1, h, net.apply(dense, n, w["w1"]), net.apply(dense, n, w["w2"])))
        return net.add(2, h, net.apply(dense, h, w["w3"]))

    return Example(
        graph(steps, ("x",), ("y",)),
        matrices("w0", "w1", "w2", "w3"),
        {"x": normal(2, 3)},
        story,
        {0: (1,), 1: (1, 1), 2: (1,)},
    )


def projected() -> Example:
    """A projection skip, and an identity skip after it."""
    steps = [
        Segment("s", ("x",), ("s",), torch.matmul, ("p",), "skip", 0),
        branch("f", "x", "w0", 0),
        Add(0, "x", "s", ("f",), "h"),
        branch("g", "h", "w1", 1),
        Add(1, "h", "h", ("g",), "y"),
    ]

    def story(net, x, w):
        h = net.add(0, net.apply(torch.matmul, x["x"], w["p"]), net.apply(dense, x["x"], w["w0"]))
        return net.add(1, h, net.apply(dense, h, w["w1"]))

    return Example(
        graph(steps, ("x",), ("y",)), matrices("p", "w0", "w1"), {"x": normal(2, 3)}, story, {0: (1,), 1: (1,)}
    )


def nested(counted: bool) -> Example:
    """Block 2 lies inside the branch of block 0; opened, entering the outer branch adds nothing."""
    steps = [
        branch("v", "x", "w0", 0),
        Segment("i", ("v",), ("i",), dense, ("w1",), "branch", 2, 0),
        Add(2, "v", "v", ("i",), "u"),
        branch("f", "u", "w2", 0),
        Add(0, "x", "x", ("f",), "h"),
        branch("g", "h", "w3", 1),
        Add(1, "h", "h", ("g",), "y"),
    ]

    def story(net, x, w):
        v = net.apply(dense, x["x"], w["w0"])
        u = net.add(2, v, net.apply(dense, v, w["w1"]))
        h = net.add(0, x["x"], net.apply(dense, u, w["w2"]))
        return net.add(1, h, net.apply(dense, h, w["w3"]))

    weights = {0: (0,), 1: (1,), 2: (1,)} if counted else {0: (1,), 1: (1,)}
    return Example(graph(steps, ("x",), ("y",)), matrices("w0", "w1", "w2", "w3"), {"x": normal(2, 3)}, story, weights)


def bare() -> Example:
    """Sums whose operands are sums: no segment lies between the three additions."""
    steps = [
        branch("f", "x", "w0", 2),
        Add(2, "x", "x", ("f",), "a"),
        Add(1, "x", "x", ("a",), "b"),
        Add(0, "x", "x", ("b",), "y"),
    ]

    def story(net, x, w):
        a = net.add(2, x["x"], net.apply(dense, x["x"], w["w0"]))
        return net.add(0, x["x"], net.add(1, x["x"], a))

    return Example(
        graph(steps, ("x",), ("y",)), matrices("w0"), {"x": normal(2, 3)}, story, {0: (1,), 1: (1,), 2: (1,)}
    )


def _meet(h, e, weight):
    return torch.tanh(h @ weight * e)


def two_sources() -> Example:
    """Two trunks that meet in the branch of the last block."""
    steps = [
        branch("f", "a", "w0", 0),
        Add(0, "a", "a", ("f",), "a1"),
        branch("g", "b", "w1", 1),
        Add(1, "b", "b", ("g",), "b1"),
        Segment("m", ("a1", "b1"), ("m",), _meet, ("w2",), "branch", 2, 0),
        Add(2, "a1", "a1", ("m",), "y"),
    ]

    def story(net, x, w):
        a = net.add(0, x["a"], net.apply(dense, x["a"], w["w0"]))
        b = net.add(1, x["b"], net.apply(dense, x["b"], w["w1"]))
        return net.add(2, a, net.apply(_meet, a, b, w["w2"]))

    return Example(
        graph(steps, ("a", "b"), ("y",)),
        matrices("w0", "w1", "w2"),
        {"a": normal(2, 3), "b": normal(2, 3, seed=1)},
        story,
        {0: (1,), 1: (1,), 2: (1,)},
    )


def _attend(h, e, weight):
    """Attention of h over e: [positions, width] each."""
    return torch.softmax(h @ weight @ e.T, dim=-1) @ e


def cross_attention() -> Example:
    """An encoder of two blocks whose output both cross-attentions of the decoder read; a mask is a plain input."""

    def masked(h, mask, weight):
        return torch.softmax(h @ weight @ h.T + mask, dim=-1) @ h

    steps: list[Any] = [
        branch("e_f", "s", "w0", 0),
        Add(0, "s", "s", ("e_f",), "s1"),
        branch("e_g", "s1", "w1", 1),
        Add(1, "s1", "s1", ("e_g",), "s2"),
        Segment("e", ("s2",), ("e",), norm),
        Segment("self", ("d", "mask"), ("self",), masked, ("w2",), "branch", 2, 0),
        Add(2, "d", "d", ("self",), "d1"),
        Segment("c1", ("d1", "e"), ("c1",), _attend, ("w3",), "branch", 3, 0),
        Add(3, "d1", "d1", ("c1",), "d2"),
        Segment("c2", ("d2", "e"), ("c2",), _attend, ("w4",), "branch", 4, 0),
        Add(4, "d2", "d2", ("c2",), "y"),
    ]

    def story(net, x, w):
        s = net.add(0, x["s"], net.apply(dense, x["s"], w["w0"]))
        e = net.apply(norm, net.add(1, s, net.apply(dense, s, w["w1"])))
        d = net.add(2, x["d"], net.apply(masked, x["d"], x["mask"], w["w2"]))
        d = net.add(3, d, net.apply(_attend, d, e, w["w3"]))
        return net.add(4, d, net.apply(_attend, d, e, w["w4"]))

    return Example(
        graph(steps, ("s", "d", "mask"), ("y",), sources=("s", "d")),
        matrices("w0", "w1", "w2", "w3", "w4"),
        {"s": normal(4, 3), "d": normal(2, 3, seed=1), "mask": torch.zeros(2, 2, dtype=F64)},
        story,
        dict.fromkeys(range(5), (1,)),
    )


def by_pass() -> Example:
    """`h[:, :2] += f(h)` twice, on different columns: what is not sliced meets no block."""

    def left(h):
        return h[:, :2]

    def right(h):
        return h[:, 1:]

    def put_left(h, part):
        return torch.cat([part, h[:, 2:]], dim=1)

    def put_right(h, part):
        return torch.cat([h[:, :1], part], dim=1)

    steps = [
        Segment("l", ("x",), ("l",), left),
        branch("f", "x", "w0", 0),
        Add(0, "l", "l", ("f",), "s0"),
        Segment("h", ("x", "s0"), ("h",), put_left),
        Segment("r", ("h",), ("r",), right),
        branch("g", "h", "w1", 1),
        Add(1, "r", "r", ("g",), "s1"),
        Segment("y", ("h", "s1"), ("y",), put_right),
    ]

    def story(net, x, w):
        s0 = net.add(0, net.apply(left, x["x"]), net.apply(dense, x["x"], w["w0"]))
        h = net.apply(put_left, x["x"], s0)
        s1 = net.add(1, net.apply(right, h), net.apply(dense, h, w["w1"]))
        return net.apply(put_right, h, s1)

    state = {"w0": normal(3, 2, seed=5), "w1": normal(3, 2, seed=6)}
    return Example(graph(steps, ("x",), ("y",)), state, {"x": normal(2, 3)}, story, {0: (1,), 1: (1,)})


def two_outputs() -> Example:
    """One segment with two results: two trunks, a block on each, joined again; one further result is not read."""

    def halves(h):
        a, b = h.tanh().chunk(2, dim=1)
        return a, b, h.argmax(dim=1)

    def join(a, b):
        return torch.cat([a, a * b], dim=1)

    steps = [
        Segment("split", ("x",), ("a", "b", "index"), halves),
        branch("f", "a", "w0", 0),
        Add(0, "a", "a", ("f",), "a1"),
        branch("g", "b", "w1", 1),
        Add(1, "b", "b", ("g",), "b1"),
        Segment("y", ("a1", "b1"), ("y",), join),
    ]

    def story(net, x, w):
        a, b, _ = net.apply(halves, x["x"], outputs=3)
        a = net.add(0, a, net.apply(dense, a, w["w0"]))
        b = net.add(1, b, net.apply(dense, b, w["w1"]))
        return net.apply(join, a, b)

    made = graph(steps, ("x",), ("y",))
    streams = {**made.streams, "index": Stream("index", dtype=torch.int64)}
    made = Graph(streams, made.steps, made.inputs, made.sources, made.outputs)
    return Example(made, matrices("w0", "w1"), {"x": normal(2, 6)}, story, {0: (1,), 1: (1,)})


EXAMPLES: dict[str, Callable[[], Example]] = {
    "no block": lambda: chain(0),
    "chain of 1": lambda: chain(1),
    "chain of 3": lambda: chain(3),
    "chain of 5": lambda: chain(5),
    "scalar chain": lambda: scalar_chain(4),
    "plain": plain,
    "parallel": parallel,
    "projected": projected,
    "nested, uncounted": lambda: nested(counted=False),
    "nested, counted": lambda: nested(counted=True),
    "bare": bare,
    "two sources": two_sources,
    "cross-attention": cross_attention,
    "by-pass": by_pass,
    "two outputs": two_outputs,
}


def subsets(items):
    """All subsets, the empty one first."""
    return [frozenset(s) for size in range(len(items) + 1) for s in combinations(items, size)]

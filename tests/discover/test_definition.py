"""What counts as a residual addition: DESIGN.md's definition, line by line, each line a small model."""

import pytest
import torch
from torch import nn

from networks import Chain, Does, Residual, error, lively, mlp, normal
from unbraid.errors import NotResidualError
from unbraid.form import trace

ROWS = normal(3, 6)
WORDS = normal(3, 4, 6)
IMAGES = normal(3, 4, 8, 8)


def conv(inputs=4, outputs=4, stride=1):
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


def deep(inputs=4, outputs=4, stride=1):
    return nn.Sequential(conv(inputs, outputs, stride), nn.ReLU(), conv(outputs, outputs))


def vector(width=6):
    return nn.Parameter(torch.ones(width))


def in_place(net, x):
    h = net.stem(x)
    h += net.f(h)
    return 2 * h


def in_place_add(net, x):
    return net.stem(x).add_(net.f(x))


def in_place_on_a_slice(net, x):
    h = net.stem(x)
    h[:, :4] += net.f(h)
    return net.head(h)


def twice_on_slices(net, x):
    h = net.stem(x)
    h[:, :4] += net.f(h)
    h[:, 2:] += net.g(h)
    return net.head(h)


def one_norm(net, x):
    n = net.norm(x)
    return net.attn(n) + net.mlp(n) + x


def three_times(net, x):
    for _ in range(3):
        x = x + net.f(x)
    return x


def mixture(net, x):
    share = torch.softmax(net.router(x), dim=-1)
    return x + (share[:, :1] * net.a(x) + share[:, 1:] * net.b(x))


def shifted(net, x):
    """Swin: the window moves there and back."""
    return x + torch.roll(net.f(torch.roll(x, 1, 1)), -1, 1)


def preactivated(net, x):
    u = torch.relu(net.norm(x))
    return u + net.f(u)


def pooled_skip(pool):
    return Does(lambda net, x: net.pool(x) + net.f(x), pool=pool, f=deep(stride=2))


# name: (model, input, [(skip, branches, nested) of each block])
BLOCKS = {
    "the plain sentence": (lambda: Does(lambda net, x: x + net.f(x), f=mlp(6)), ROWS, [("identity", 1, 0)]),
    "branch first": (lambda: Does(lambda net, x: net.f(x) + x, f=mlp(6)), ROWS, [("identity", 1, 0)]),
    "a view and back": (
        lambda: Does(
            lambda net, x: (x.reshape(-1, 2, 3).transpose(1, 2) + net.f(x).view(-1, 3, 2)).flatten(1), f=mlp(6)
        ),
        ROWS,
        [("identity", 1, 0)],
    ),
    "a broadcast": (
        lambda: Does(lambda net, x: x[:, None].expand(-1, 3, -1) + net.f(x).view(-1, 3, 6), f=mlp(6, 6, 18)),
        ROWS,
        [("identity", 1, 0)],
    ),
    "a branch that is spread": (
        lambda: Does(lambda net, x: x + net.f(x).mean(-1, keepdim=True), f=mlp(6)),
        ROWS,
        [("identity", 1, 0)],
    ),
    "the same, with expand_as": (
        lambda: Does(lambda net, x: x + net.f(x).mean(-1, keepdim=True).expand_as(x), f=mlp(6)),
        ROWS,
        [("identity", 1, 0)],
    ),
    "the first token's attention, spread over all": (
        lambda: Does(lambda net, x: net.f(x[:, :1]).tanh() + x, f=mlp(6)),
        WORDS,
        [("identity", 1, 0)],
    ),
    "learned tokens that are spread over the batch": (
        lambda: Does(
            lambda net, x: net.tokens + net.f(net.tokens * x.mean(1, keepdim=True)),
            f=mlp(6),
            tokens=nn.Parameter(torch.ones(5, 6)),
        ),
        WORDS,
        [("identity", 1, 0)],
    ),
    "positions mixed": (
        lambda: Does(lambda net, x: x + net.f(x.transpose(1, 2)).transpose(1, 2), f=mlp(4)),
        WORDS,
        [("identity", 1, 0)],
    ),
    "rolled windows": (lambda: Does(shifted, f=mlp(6)), WORDS, [("identity", 1, 0)]),
    "a scaled branch": (
        lambda: Does(lambda net, x: torch.add(x, net.f(x), alpha=0.3), f=mlp(6)),
        ROWS,
        [("identity", 1, 0)],
    ),
    "a layer scale": (
        lambda: Does(lambda net, x: x + net.scale * net.f(x), f=mlp(6), scale=vector()),
        ROWS,
        [("identity", 1, 0)],
    ),
    "a gain alone": (  # pointwise, but with parameters
        lambda: Does(lambda net, x: x + net.gain * torch.tanh(x), gain=vector()),
        ROWS,
        [("identity", 1, 0)],
    ),
    "after a pre-activation": (
        lambda: Does(preactivated, norm=nn.LayerNorm(6), f=mlp(6)),
        ROWS,
        [("identity", 1, 0)],
    ),
    "several layers, far apart": (
        lambda: Does(lambda net, x: net.c(net.b(net.a(x))) + x, a=mlp(6), b=mlp(6), c=mlp(6)),
        ROWS,
        [("identity", 1, 0)],
    ),
    "projection: linear": (
        lambda: Does(lambda net, x: net.p(x) + net.f(x), p=nn.Linear(6, 4), f=mlp(6, 6, 4)),
        ROWS,
        [("projection", 1, 0)],
    ),
    "projection: convolution and batch norm": (
        lambda: Does(
            lambda net, x: net.p(x) + net.f(x),
            p=nn.Sequential(nn.Conv2d(4, 6, 1, stride=2), nn.BatchNorm2d(6)),
            f=deep(4, 6, 2),
        ),
        IMAGES,
        [("projection", 1, 0)],
    ),
    "projection: batch norm": (
        lambda: Does(lambda net, x: net.p(x) + net.f(x), p=nn.BatchNorm1d(6), f=mlp(6)),
        ROWS,
        [("projection", 1, 0)],
    ),
    "projection: average pooling": (lambda: pooled_skip(nn.AvgPool2d(2)), IMAGES, [("projection", 1, 0)]),
    "projection: max pooling": (lambda: pooled_skip(nn.MaxPool2d(2)), IMAGES, [("projection", 1, 0)]),
    "projection: max pooling of one stride": (
        lambda: pooled_skip(nn.MaxPool2d(3, stride=2, padding=1)),
        IMAGES,
        [("projection", 1, 0)],
    ),
    "projection: option A, sliced and padded": (
        lambda: Does(
            lambda net, x: nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)) + net.f(x), f=deep(4, 6, 2)
        ),
        IMAGES,
        [("projection", 1, 0)],
    ),
    "projection: sliced": (
        lambda: Does(lambda net, x: x[:, :4] + net.f(x), f=mlp(6, 6, 4)),
        ROWS,
        [("projection", 1, 0)],
    ),
    "projection: scaled by a constant": (
        lambda: Does(lambda net, x: 0.5 * x + net.f(x), f=mlp(6)),
        ROWS,
        [("projection", 1, 0)],
    ),
    "in place": (lambda: Does(in_place, stem=nn.Linear(6, 6), f=mlp(6)), ROWS, [("identity", 1, 0)]),
    "in place, add_": (lambda: Does(in_place_add, stem=nn.Linear(6, 6), f=mlp(6)), ROWS, [("projection", 1, 0)]),
    "in place on a slice": (
        lambda: Does(in_place_on_a_slice, stem=nn.Linear(6, 6), f=mlp(6, 6, 4), head=mlp(6)),
        ROWS,
        [("identity", 1, 0)],
    ),
    "in place on two slices": (
        lambda: Does(twice_on_slices, stem=nn.Linear(6, 6), f=mlp(6, 6, 4), g=mlp(6, 6, 4), head=mlp(6)),
        ROWS,
        [("identity", 1, 0), ("identity", 1, 0)],
    ),
    "parallel, (attn + mlp) + x": (
        lambda: Does(one_norm, norm=nn.LayerNorm(6), attn=mlp(6), mlp=mlp(6)),
        ROWS,
        [("identity", 2, 0)],
    ),
    "parallel, (x + attn) + mlp": (
        lambda: Does(lambda net, x: (x + net.attn(x)) + net.mlp(x), attn=mlp(6), mlp=mlp(6)),
        ROWS,
        [("identity", 2, 0)],
    ),
    "parallel, three": (
        lambda: Does(lambda net, x: x + (net.a(x) + (net.b(x) + net.c(x))), a=mlp(6), b=mlp(6), c=mlp(6)),
        ROWS,
        [("identity", 3, 0)],
    ),
    "x + (expert + expert)": (
        lambda: Does(lambda net, x: x + (net.a(x) + net.b(x)), a=mlp(6), b=mlp(6)),
        ROWS,
        [("identity", 2, 0)],
    ),
    "routed experts": (
        lambda: Does(mixture, router=nn.Linear(6, 2), a=mlp(6), b=mlp(6)),
        ROWS,
        [("identity", 2, 0)],
    ),
    "one layer three times": (lambda: Does(three_times, f=mlp(6)), ROWS, [("identity", 1, 0)] * 3),
    "positional convolution": (lambda: Does(lambda net, x: x + net.f(x), f=conv()), IMAGES, [("identity", 1, 0)]),
    "PoolFormer": (
        lambda: Does(lambda net, x: x + net.pool(x), pool=nn.AvgPool2d(3, stride=1, padding=1)),
        IMAGES,
        [("identity", 1, 0)],
    ),
    "FNet": (lambda: Does(lambda net, x: x + torch.fft.fft2(x).real), WORDS, [("identity", 1, 0)]),
    "nested": (
        lambda: Chain(Residual(nn.Sequential(nn.Linear(6, 6), Residual(mlp(6)), nn.Linear(6, 6))), Residual(mlp(6))),
        ROWS,
        [("identity", 1, 1), ("identity", 1, 0)],
    ),
    "one skip over the rest": (
        lambda: Does(lambda net, x: net.rest(x) + x, rest=Chain(Residual(mlp(6)), Residual(mlp(6)))),
        ROWS,
        [("identity", 1, 2)],
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_these_are_residual(name):
    model, x, expected = BLOCKS[name]
    model = lively(model())
    form = trace(model, x)
    assert [(b.skip, len(b.branches), len(b.nested)) for b in form.blocks] == expected
    assert form.error < 1e-12
    for batch in (1, 2, 5):
        other = normal(batch, *x.shape[1:], seed=batch)
        assert error(form(other), model(other)) < 1e-12


def test_what_is_written_in_place_keeps_its_type():
    """The operand is wider, and the sum of the two would be."""
    model = Does(
        lambda net, x: x.clone().add_(net.f(x).double()).mul_(torch.ones(6, dtype=torch.float64)), f=mlp(6)
    ).float()
    form = trace(model.eval(), ROWS.float())
    assert [b.skip for b in form.blocks] == ["identity"]
    assert form(ROWS.float()).dtype == model(ROWS.float()).dtype == torch.float32
    assert error(form(ROWS.float()), model(ROWS.float())) < 1e-6


def gelu(h):
    return 0.5 * h * (1 + torch.tanh(0.7978845608 * (h + 0.044715 * h**3)))


def rotary(net, x):
    q, angle = net.q(x), torch.arange(6, dtype=x.dtype)
    return torch.relu(net.o(q * torch.cos(angle) + torch.cat([-q[..., 3:], q[..., :3]], dim=-1) * torch.sin(angle)))


def rotary_of(norm):
    """Queries are normed before they are turned: the norm's length is no gate."""

    def turned(net, x):
        q, angle = net.scale * norm(net.q(x)), torch.arange(6, dtype=x.dtype)
        halves = torch.cat([-q[..., 3:], q[..., :3]], dim=-1)
        return torch.relu(net.o(q * torch.cos(angle) + halves * torch.sin(angle)))

    return lambda: Does(turned, q=nn.Linear(6, 6), o=nn.Linear(6, 6), scale=vector())


# name: (norm, number of refusals: the mean that it takes off is one)
NORMS = {
    "RMS": (lambda q: q * torch.rsqrt(q.pow(2).mean(-1, keepdim=True) + 1e-6), 1),
    "RMS, divided": (lambda q: q / torch.sqrt((q * q).mean(-1, keepdim=True) + 1e-6), 1),
    "a length": (lambda q: q / torch.linalg.vector_norm(q, dim=-1, keepdim=True).clamp_min(1e-6), 1),
    "a deviation": (lambda q: (q - q.mean(-1, keepdim=True)) / (q.var(-1, keepdim=True) + 1e-6).sqrt(), 2),
}


def pooled_queries(net, x):
    """Funnel: the class token and the mean of the others ask all tokens; positions are weighted by what is asked."""
    query = net.q(torch.cat([x[:, :1], x[:, 1:].mean(1, keepdim=True)], 1))
    return torch.softmax(query @ net.k(x).mT + net.r(query), -1)


def attended(net, x):
    x = net.a(x)
    return torch.softmax(net.q(x) @ net.k(x).mT, -1) @ net.v(x)


def behind_attention(forward):
    """What is refused over the tensor that attention returns is none over what attention mixed."""
    layers = {name: nn.Linear(6, 6) for name in "aqkvo"}
    return lambda: Does(lambda net, x: torch.tanh(net.o(forward(attended(net, x)))), **layers)


def normed_and_back(net, x):
    mean = x.mean(-1, keepdim=True)
    return net.f((x - mean) / (x.std(-1, keepdim=True) + 1e-5)) + mean


def coupled_after_a_swap(net, x):
    a, b = net.i(x).chunk(2, -1)
    a, b = torch.cat([b, a.tanh()], -1).chunk(2, -1)
    return torch.cat([torch.tanh(a + torch.tanh(net.f(b))), b], -1)


def with_its_shift(y):
    return torch.tanh(y + y.roll(1, 1))


def from_zeros(net, x):
    """ProteinMPNN: the nodes begin with zeros, to which the first message is added."""
    state = torch.zeros_like(x)
    return state + net.f(torch.cat([state, x], -1))


NEITHER = "neither operand reaches"
POINTWISE = "pointwise function of the first, without parameters"
AFFINE = "both operands are affine"

# name: (model, input, number of refusals, the reason of the last)
NONE = {
    "GELU": (lambda: Does(lambda net, x: gelu(net.f(x)), f=nn.Linear(6, 6)), ROWS, 1, POINTWISE),
    "GELU behind attention": (behind_attention(gelu), WORDS, 1, POINTWISE),
    "y + y² behind attention": (behind_attention(lambda y: y + y * y), WORDS, 1, POINTWISE),
    "y and its shift behind attention": (behind_attention(lambda y: y + y.roll(1, 1)), WORDS, 1, POINTWISE),
    "a gate's product and its shift": (
        lambda: Does(
            lambda net, x: with_its_shift(torch.sigmoid(net.g(net.a(x))) * net.a(x)),
            a=nn.Linear(6, 6),
            g=nn.Linear(6, 6),
        ),
        WORDS,
        1,
        POINTWISE,
    ),
    "x + x²": (lambda: Does(lambda net, x: x + x * x), ROWS, 1, POINTWISE),
    "x + relu(x)": (lambda: Does(lambda net, x: x + torch.relu(x)), ROWS, 1, POINTWISE),
    "biases": (
        lambda: Does(lambda net, x: torch.tanh(x @ net.w + net.b), w=nn.Parameter(torch.eye(6)), b=vector()),
        ROWS,
        0,
        None,
    ),
    "a bias of full size": (
        lambda: Does(lambda net, x: torch.tanh(net.f(x)) + net.b, f=nn.Linear(6, 6), b=nn.Parameter(torch.ones(4, 6))),
        WORDS,
        0,
        None,
    ),
    "a token for each row": (
        lambda: Does(lambda net, x: torch.tanh(net.f(x)) + net.b, f=nn.Linear(6, 6), b=nn.Parameter(torch.ones(3, 6))),
        ROWS,
        0,
        None,
    ),
    "a mean that is spread over f(x)": (
        lambda: Does(lambda net, x: x.mean(-1, keepdim=True) + net.f(x), f=mlp(6)),
        ROWS,
        1,
        "its operands have different sizes",
    ),
    "the same, with expand": (
        lambda: Does(lambda net, x: x.mean(-1, keepdim=True).expand(-1, 6) + net.f(x), f=mlp(6)),
        ROWS,
        1,
        "its operands have different sizes",
    ),
    "a mean that is taken off and added again at the end": (
        lambda: Does(normed_and_back, f=mlp(6, 6, 6)),
        ROWS,
        2,
        "its operands have different sizes",
    ),
    "the same, of a part": (
        lambda: Does(lambda net, x: x[:, :1].expand(-1, 6) + net.f(x - x[:, :1]), f=mlp(6)),
        ROWS,
        2,
        "its operands have different sizes",
    ),
    "a coupling of halves that were just put side by side": (
        lambda: Does(coupled_after_a_swap, i=nn.Linear(6, 6), f=nn.Linear(3, 3)),
        ROWS,
        1,
        "disjoint parts",
    ),
    "rotary positions": (lambda: Does(rotary, q=nn.Linear(6, 6), o=nn.Linear(6, 6)), WORDS, 1, AFFINE),
    **{f"rotary positions, {name}": (rotary_of(norm), WORDS, count, AFFINE) for name, (norm, count) in NORMS.items()},
    "two experts": (lambda: Does(lambda net, x: net.a(x) + net.b(x), a=mlp(6), b=mlp(6)), ROWS, 1, NEITHER),
    "two scores": (
        lambda: Does(lambda net, x: torch.softmax(net.a(x) @ x.mT + net.b(x) @ x.mT, -1), a=mlp(6), b=mlp(6)),
        WORDS,
        1,
        NEITHER,
    ),
    "scores of pooled queries": (
        lambda: Does(pooled_queries, q=nn.Linear(6, 6), k=nn.Linear(6, 6), r=nn.Linear(6, 4)),
        WORDS,
        1,
        AFFINE,
    ),
    "an auxiliary head": (
        lambda: Does(lambda net, x: net.a(x[:, 0]) + net.b(x[:, 1]), a=nn.Linear(6, 4), b=nn.Linear(6, 4)),
        WORDS,
        1,
        AFFINE,
    ),
    "a state that begins with zeros": (lambda: Does(from_zeros, f=mlp(12, outputs=6)), ROWS, 0, None),
    "a plain network": (lambda: Chain(mlp(6), mlp(6)), ROWS, 0, None),
}


@pytest.mark.parametrize("name", NONE)
def test_these_are_not_and_the_rest_is_still_traced(name):
    model, x, count, reason = NONE[name]
    model = lively(model())
    with pytest.raises(NotResidualError) as caught:
        trace(model, x)
    assert len(caught.value.refusals) == count
    if reason:
        assert reason in caught.value.refusals[-1].reason

    width = model(x).shape[-1]
    both = Chain(model, Residual(lively(mlp(width), seed=1))).eval()
    form = trace(both, x)
    assert [b.name for b in form.blocks] == ["blocks.1"]
    assert [r.reason for r in form.refusals] == [r.reason for r in caught.value.refusals]
    assert error(form(x), both(x)) < 1e-12


class Embedded(nn.Module):
    """Word, position and type embeddings; positions are computed from the input."""

    def __init__(self, block):
        super().__init__()
        self.word, self.position, self.kind = nn.Embedding(11, 6), nn.Embedding(9, 6), nn.Embedding(2, 6)
        self.block = block

    def forward(self, ids, types):
        mask = (ids != 1).long()
        h = self.word(ids) + self.position(torch.cumsum(mask, dim=1) * mask) + self.kind(types)
        return self.block(h)


def test_sums_of_embeddings_are_none():
    ids = torch.arange(12).view(3, 4) % 11
    with pytest.raises(NotResidualError):
        trace(lively(Embedded(mlp(6))), (ids, ids % 2))
    model = lively(Embedded(Residual(mlp(6))))
    form = trace(model, (ids, ids % 2))
    assert [b.name for b in form.blocks] == ["block"]
    assert form.error < 1e-12
    assert error(form(ids[:2], ids[:2] % 2), model(ids[:2], ids[:2] % 2)) < 1e-12


class Token(nn.Module):
    """A learned token attends to the input: CaiT's class attention, SigLIP's pooling head."""

    def __init__(self, free):
        super().__init__()
        self.token, self.free = nn.Parameter(torch.ones(1, 1, 6)), free
        self.query, self.f = nn.Linear(6, 6), mlp(6)

    def forward(self, x):
        t = self.token.expand(x.shape[0] if self.free else 3, -1, -1)
        u = torch.cat([t, x], dim=1)
        t = t + torch.softmax(self.query(t) @ u.mT, dim=-1) @ u
        return t + self.f(t)


@pytest.mark.parametrize("free", [True, False], ids=["any batch", "one batch size"])
def test_the_skip_may_carry_a_learned_token(free):
    """From the input no path leads along the first skip: the token lies there, and the input enters by the branch."""
    model = lively(Token(free))
    form = trace(model, WORDS)
    assert [(b.skip, len(b.branches)) for b in form.blocks] == [("identity", 1)] * 2
    assert form.sources == ("x",)
    assert error(form(WORDS), model(WORDS)) < 1e-12
    assert form.path_counts() == [0, 1, 1]


class Tied(nn.Module):
    """Layers with the same parameters, run three times, each of which adds the same learned tensor."""

    def __init__(self, nested, place):
        super().__init__()
        self.nested, self.place = nested, place
        self.p, self.f, self.g = nn.Linear(6, 6), mlp(6), nn.Linear(6, 6)
        self.bias = nn.Parameter(torch.ones(1, 6))

    def forward(self, x):
        for _ in range(3):
            z = self.g(x) if self.nested else x
            parts = [self.p(z), self.f(z)]
            parts.insert(self.place, self.bias.expand(z.shape) if self.place else self.bias.expand_as(z))
            z = parts[0] + parts[1] + parts[2]
            x = x + torch.tanh(self.g(torch.tanh(z))) if self.nested else torch.tanh(z)
        return x


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("nested", [False, True], ids=["top level", "nested"])
def test_a_tensor_that_every_layer_adds_begins_no_block(nested, place):
    model, x = lively(Tied(nested, place)), normal(2, 6)
    form = trace(model, x)
    kinds = [block.skip for block in form.all_blocks]
    assert kinds == (["identity", "identity", "identity"] if nested else []) + ["projection"] * 3
    assert form.refusals == ()
    assert form.path_counts(nested=True) == ([8, 12, 6, 1] if nested else [1, 3, 3, 1])  # (2 + t)³, (1 + t)³
    assert error(form(x), model(x)) < 1e-12


def test_a_learned_decay_that_is_added_at_each_step_begins_no_block():
    """RWKV's soft-max over the past: of what is added to the decay only the decay itself is learned."""

    def steps(net, x):
        decay, state, outputs = -torch.exp(net.decay), torch.full_like(x[:, 0], -1e3), []
        for t in range(x.shape[1]):
            state = torch.maximum(state + decay, net.key(x)[:, t])
            outputs.append(torch.exp(state))
        return x + torch.stack(outputs, dim=1) @ net.out.weight

    net = lively(Does(steps, decay=vector(), key=nn.Linear(6, 6), out=nn.Linear(6, 6)))
    x = normal(2, 4, 6)
    form = trace(net, x)
    assert [(block.skip, block.nested) for block in form.blocks] == [("identity", ())]
    assert error(form(x), net(x)) < 1e-12


@pytest.mark.parametrize("pick", ["index", "embedding", "one-hot"])
def test_a_bias_that_a_choice_picks_is_no_branch_beside_a_projection(pick):
    """A router's: W x + b[expert]; with the expert held nothing is left but affine maps."""

    def forward(net, x):
        expert = net.router(x).argmax(-1)
        bias = {
            "index": lambda: net.table.weight[expert],
            "embedding": lambda: net.table(expert),
            "one-hot": lambda: nn.functional.one_hot(expert, 6).to(x) @ net.table.weight,
        }[pick]()
        return x + torch.tanh(net.w(x) + bias)

    net = lively(Does(forward, router=nn.Linear(6, 6), w=nn.Linear(6, 6), table=nn.Embedding(6, 6)))
    form = trace(net, normal(4, 6))
    assert [(block.skip, block.nested) for block in form.blocks] == [("identity", ())]
    assert len(form.refusals) == 1
    assert error(form(normal(4, 6)), net(normal(4, 6))) < 1e-12


class EncoderDecoder(nn.Module):
    """Two trunks; every block of the decoder attends to the encoder's output."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleList([mlp(6) for _ in range(2)])
        self.norm = nn.LayerNorm(6)
        self.decoder = nn.ModuleList([mlp(6) for _ in range(2)])
        self.cross = nn.ModuleList([nn.Linear(6, 6) for _ in range(2)])

    def forward(self, source, target):
        for f in self.encoder:
            source = source + f(source)
        source = self.norm(source)
        for f, query in zip(self.decoder, self.cross, strict=True):
            target = target + f(target)
            target = target + torch.softmax(query(target) @ source.mT, dim=-1) @ source
        return target


def test_an_encoder_does_not_break_the_decoders_trunk():
    """Decoder: (1 + t)⁴; from the encoder (1 + t)² · t · (2 + 2t + t²): it may enter at either cross-attention."""
    model = lively(EncoderDecoder())
    source, target = normal(2, 5, 6), normal(2, 4, 6, seed=1)
    form = trace(model, (source, target))
    assert [b.skip for b in form.blocks] == ["identity"] * 6
    assert form.sources == ("source", "target")
    assert form.path_counts() == [1, 6, 12, 11, 5, 1]
    source, target = normal(3, 2, 6), normal(3, 3, 6, seed=1)
    assert error(form(source, target), model(source, target)) < 1e-12


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(6, 6)

    def forward(self, x, mask):
        return x + torch.softmax(self.query(x) @ x.mT + mask, dim=-1) @ x


def test_a_float_mask_is_no_source():
    form = trace(lively(Masked()), (WORDS, normal(3, 4, 4)))
    assert len(form.blocks) == 1
    assert form.sources == ("x",)


def test_the_refusal_of_a_model_says_what_to_do():
    model = lively(Chain(Does(lambda net, x: gelu(net.f(x)), f=nn.Linear(6, 6)), mlp(6)))
    with pytest.raises(
        NotResidualError,
        match=r"Chain: no residual addition among its 1 additions of data\.\n"
        r"  test_definition\.py:\d+: the other operand is a pointwise function of the first, without parameters "
        r"\(1x\)\n"
        r"  A plain network is cut at layers of your choice: unbraid\.chain\(model, args, layers=\[\.\.\.\]\)\.",
    ) as caught:
        trace(model, ROWS)
    assert [r.where.split(":")[0] for r in caught.value.refusals] == ["test_definition.py"]


def test_repeated_reasons_are_counted():
    layers = [Does(lambda net, x: gelu(net.f(x)), f=nn.Linear(6, 6)) for _ in range(7)]
    with pytest.raises(NotResidualError, match=r"among its 7 additions of data(.|\n)*\(7x\)") as caught:
        trace(lively(Chain(*layers)), ROWS)
    assert len(caught.value.refusals) == 7


def test_a_sum_inside_a_block_is_not_refused():
    """(attn + mlp) + x is one block: the inner sum belongs to it."""
    form = trace(lively(Does(one_norm, norm=nn.LayerNorm(6), attn=mlp(6), mlp=mlp(6))), ROWS)
    assert form.refusals == ()


def context(net, x):
    return torch.tanh(net.f(x)).mean(1, keepdim=True)


SPREAD = {
    "x + f": lambda net, x: x + context(net, x),
    "f + x": lambda net, x: context(net, x) + x,
    "in place": lambda net, x: x.clone().add_(context(net, x)),
    "alpha": lambda net, x: torch.add(x, context(net, x), alpha=2),
    "minus minus": lambda net, x: x - (-context(net, x)),
    "lerp": lambda net, x: torch.lerp(2 * x, 2 * context(net, x), 0.5),
    "addcmul": lambda net, x: torch.addcmul(x, context(net, x), torch.full((6,), 2.0, dtype=x.dtype)),
    "expand": lambda net, x: x + context(net, x).expand(-1, x.shape[1], -1),
    "expand_as": lambda net, x: x + context(net, x).expand_as(x),
    "repeat": lambda net, x: x + context(net, x).repeat(1, x.shape[1], 1),
    "broadcast_to": lambda net, x: x + torch.broadcast_to(context(net, x), x.shape),
    "broadcast_tensors": lambda net, x: sum(torch.broadcast_tensors(x, context(net, x))),
}


@pytest.mark.parametrize("name", SPREAD)
def test_a_branch_that_is_spread_is_one_in_every_spelling(name):
    model = lively(Does(SPREAD[name], f=nn.Linear(6, 6)))
    form = trace(model, WORDS)
    assert [(b.skip, len(b.branches)) for b in form.blocks] == [("identity", 1)]
    assert not form.refusals
    assert form.path_counts() == [1, 1]
    assert error(form.without(0)(WORDS), WORDS) < 1e-12

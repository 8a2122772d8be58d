"""What the zoo taught about the definition, each lesson as a small model."""

from collections import Counter

import pytest
import torch
from torch import nn

from networks import Chain, Does, Residual, error, lively, mlp, normal
from unbraid.errors import NotResidualError
from unbraid.form import trace

ROWS = normal(3, 6)
IMAGES = normal(3, 4, 8, 8)
IDS = torch.randint(3, 20, (3, 5), generator=torch.Generator().manual_seed(0))


def vector(width=6):
    return nn.Parameter(torch.ones(width))


def traced(net, inputs):
    net = lively(net)
    form = trace(net, inputs)
    assert form.error <= 1e-12
    return form


def kinds(form):
    return [(block.skip, len(block.branches)) for block in form.blocks]


def test_a_bias_that_all_layers_add_to_their_scores_is_no_skip_around_them():
    """T5: the bias is a parameter, and the second layer's scores depend on it through the first layer."""

    def layers(net, x):
        bias = torch.cumsum(net.bias, 0).expand(len(x), 6)
        for q, f in ((net.q0, net.f0), (net.q1, net.f1)):
            x = x + f(torch.softmax(q(x) + bias, -1))
        return x

    net = Does(layers, bias=vector(), q0=mlp(6), q1=mlp(6), f0=mlp(6), f1=mlp(6))
    form = traced(net, ROWS)
    assert kinds(form) == [("identity", 1)] * 2
    assert [len(block.nested) for block in form.blocks] == [0, 0]
    assert form.refusals == ()


def test_a_bias_is_no_addition_of_data():
    """ProphetNet: scores, positions weighted by the states, and a mask that is added to both on a line of its own."""

    def layers(net, x):
        bias = torch.cumsum(net.bias, 0).expand(len(x), 6)
        for q, p, f in ((net.q0, net.p0, net.f0), (net.q1, net.p1, net.f1)):
            scores = q(x) + p(x)
            scores = scores + bias
            x = x + f(torch.softmax(scores, -1))
        return x

    parts = {f"{name}{layer}": mlp(6) for name in "qpf" for layer in range(2)}
    form = traced(Does(layers, bias=vector(), **parts), ROWS)
    first = layers.__code__.co_firstlineno
    assert kinds(form) == [("identity", 1)] * 2
    assert Counter(refusal.where for refusal in form.refusals) == {f"test_lessons.py:{first + 3}": 2}
    assert all("neither operand" in refusal.reason for refusal in form.refusals)


def test_a_sum_over_a_stack_of_n_is_n_minus_1_additions():
    net = Does(lambda net, x: torch.stack([net.a(x), net.b(x), net.c(x)]).sum(0), a=mlp(6), b=mlp(6), c=mlp(6))
    form = traced(Chain(Residual(mlp(6)), net), ROWS)
    assert len(form.refusals) == 2


def test_scores_summed_over_the_layers_are_offsets():
    """RealFormer: skips between scores begin inside one layer and end inside the next."""

    def layers(net, x):
        scores = net.q0(x)
        x = x + net.f0(torch.softmax(scores, -1))
        scores = scores + net.q1(x)
        return x + net.f1(torch.softmax(scores, -1))

    form = traced(Does(layers, q0=mlp(6), q1=mlp(6), f0=mlp(6), f1=mlp(6)), ROWS)
    assert kinds(form) == [("identity", 1)] * 2
    assert any("offset" in refusal.reason for refusal in form.refusals)


def test_each_addition_of_an_offset_is_refused_by_its_own_line():
    def layers(net, x):
        scores = net.q0(x)
        x = x + net.f0(torch.softmax(scores, -1))
        scores = scores + net.q1(x)
        scores = scores + net.p1(x)
        return x + net.f1(torch.softmax(scores, -1))

    form = traced(Does(layers, q0=mlp(6), q1=mlp(6), p1=mlp(6), f0=mlp(6), f1=mlp(6)), ROWS)
    first = layers.__code__.co_firstlineno
    assert kinds(form) == [("identity", 1)] * 2
    assert sorted(refusal.where for refusal in form.refusals) == [f"test_lessons.py:{first + n}" for n in (3, 4)]
    assert all("offset" in refusal.reason for refusal in form.refusals)


def test_a_parameter_may_scale_the_skip_from_the_left():
    """Mamba: y = scan(x) + D·x."""
    form = traced(Does(lambda net, x: net.f(x) + net.scale * x, f=mlp(6), scale=vector()), ROWS)
    assert kinds(form) == [("projection", 1)]


def test_a_square_is_no_projection():
    with pytest.raises(NotResidualError):
        traced(Does(lambda net, x: net.f(x) + x * x, f=mlp(6)), ROWS)


def test_beside_a_scaled_skip_the_pooling_of_a_norm_is_a_branch():
    """PoolFormer V2: s·x + (pool(n) − n) with n = norm(x); the norm's scale depends on x."""

    def block(net, x):
        n = net.norm(x)
        return net.scale * x + (net.pool(n) - n)

    parts = {"norm": nn.GroupNorm(1, 4), "pool": nn.AvgPool2d(3, 1, 1), "scale": nn.Parameter(torch.ones(4, 1, 1))}
    assert kinds(traced(Does(block, **parts), IMAGES)) == [("projection", 1)]


def test_two_normed_projections_are_no_block():
    def both(net, x):
        return net.norm(net.a(x)) + net.other(net.b(x))

    parts = {"norm": nn.LayerNorm(6), "other": nn.LayerNorm(6), "a": nn.Linear(6, 6), "b": nn.Linear(6, 6)}
    with pytest.raises(NotResidualError):
        traced(Does(both, **parts), ROWS)


def test_dropout_between_the_sum_of_branches_and_the_skip():
    """Falcon: x + dropout(attention(n) + mlp(n))."""

    def block(net, x):
        n = net.norm(x)
        return x + net.dropout(net.a(n) + net.b(n))

    parts = {"norm": nn.LayerNorm(6), "a": mlp(6), "b": mlp(6), "dropout": nn.Dropout(0.5)}
    assert kinds(traced(Does(block, **parts), ROWS)) == [("identity", 2)]


class Words(nn.Module):
    def __init__(self, prepare):
        super().__init__()
        self.prepare = prepare
        self.words, self.positions, self.f = nn.Embedding(64, 6), nn.Embedding(64, 6), mlp(6)

    def forward(self, ids):
        x = self.words(self.prepare(ids)) + self.positions(torch.cumsum(ids != 0, -1))
        return x + self.f(x)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda ids: nn.functional.pad(ids, (0, 3))[:, :5],
        lambda ids: (ids * 31 + 7) % 64,
        lambda ids: torch.where(ids > 5, ids, 5),
    ],
    ids=["padded", "hashed", "replaced"],
)
def test_ids_may_be_prepared(prepare):
    """LED pads its ids, Canine hashes them: the look-up still begins the data; positions counted from them do not."""
    form = traced(Words(prepare), IDS)
    assert kinds(form) == [("identity", 1)]
    assert len(form.sources) == 1


def test_a_whole_slice_that_is_overwritten_is_what_overwrites_it():
    """Decoders shift their ids: zeros, of which a slice is overwritten by a copy."""

    def shifted(ids):
        moved = torch.zeros_like(ids)
        moved[:, 1:] = ids[:, :-1].clone()
        return moved

    net = lively(Words(shifted))
    form = trace(net, IDS)
    assert kinds(form) == [("identity", 1)]
    assert error(form(IDS), net(IDS)) <= 1e-12
    assert len(form.sources) == 1


def test_a_class_token_is_still_a_skip():
    """CaiT: the first skip carries a learned token and no data, and crosses nothing."""

    def net(net, x):
        token = net.token.expand(len(x), 6)
        for f in (net.f0, net.f1):
            token = token + f(torch.cat([token, x], -1))
        return token

    form = traced(Does(net, token=vector(), f0=mlp(12, outputs=6), f1=mlp(12, outputs=6)), ROWS)
    assert kinds(form) == [("identity", 1)] * 2


def test_a_chain_of_such_blocks_is_exact_at_other_sizes():
    net = lively(Chain(*(Does(lambda n, x: n.f(x) + n.scale * x, f=mlp(6), scale=vector()) for _ in range(3))))
    form = trace(net, ROWS)
    other = normal(5, 6, seed=7)
    assert error(form(other), net(other)) <= 1e-12
    assert form.path_counts() == [1, 3, 3, 1]

"""Concatenations that are no skip connections, and one whose form is open."""

import pytest
import torch
from torch import cat, nn
from torch.nn import functional as F  # noqa: N812

from kinds.checks import CHECKS, the_reference
from kinds.concatenations import A_BLOCK, NO_BLOCK
from kinds.dense import linear
from kinds.known import ROWS, WIDTH
from kinds.told import Told
from networks import Chain, Residual, lively, mlp, normal
from unbraid import trace
from unbraid.errors import NotResidualError


@pytest.mark.parametrize("case", [*NO_BLOCK.values(), *A_BLOCK.values()], ids=lambda case: case.blocks)
def test_both_readings_of_c2f_with_shortcuts_are_the_network(case):
    the_reference(case)


@pytest.mark.slow
@pytest.mark.parametrize("bottlenecks", NO_BLOCK)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_c2f_with_shortcuts_is_one_of_its_readings(bottlenecks, check):
    case = NO_BLOCK[bottlenecks]
    check(A_BLOCK[bottlenecks] if any(b.join == "concatenation" for b in case.form.all_blocks) else case)


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


@pytest.mark.slow
@pytest.mark.parametrize("name", NONE)
def test_these_are_none(name):
    """Alone there is no block; beside a residual block there is that one."""

    def story(net, mark, x):
        return NONE[name](net, x)

    model = lively(Told(story, a=linear(WIDTH, WIDTH), b=linear(WIDTH, WIDTH), c=linear(2, 2)))
    with pytest.raises(NotResidualError) as caught:
        trace(model, ROWS)
    width = model(ROWS).shape[1]
    form = trace(lively(Chain(model, Residual(mlp(width)))), ROWS)
    assert [(b.name, b.skip, b.join) for b in form.all_blocks] == [("blocks.1", "identity", "sum")]
    # Open: whether a concatenation that is none has its reason there; alone or beside a block, it is the same.
    assert [r.reason for r in form.refusals] == [r.reason for r in caught.value.refusals]


class Halves(nn.Module):
    """Returns what it has put together again, and what it has taken apart again."""

    def __init__(self):
        super().__init__()
        self.f = mlp(WIDTH)

    def forward(self, x):
        h = x + self.f(x)
        together = cat(h.chunk(2, 1), 1)
        return together, *cat([h, self.f(h)], 1).chunk(2, 1)


def test_what_is_returned_keeps_its_name():
    model = lively(Halves())
    form = trace(model, ROWS)
    assert [(b.skip, b.join) for b in form.blocks] == [("identity", "sum"), ("identity", "concatenation")]
    for here, there in zip(form(ROWS), model(ROWS), strict=True):
        assert torch.equal(here, there)


def class_attention(net, mark, x):
    """A class token that attends to all is put back before the other tokens: of the images' sizes, all are known."""
    tokens = net.cut(x).flatten(2).mT
    tokens = tokens + mark("update", net.scale * cat([net.f(tokens).mean(1, keepdim=True), tokens[:, 1:]], 1))
    return net.head(tokens.mean(1))


def test_the_update_of_a_class_token_is_a_branch_and_no_block_of_its_own():
    cut, scale = nn.Conv2d(2, WIDTH, 2, stride=2), nn.Parameter(torch.rand(WIDTH))
    model = lively(Told(class_attention, cut=cut, scale=scale, f=mlp(WIDTH), head=linear(WIDTH, 3)))
    form = trace(model, normal(2, 2, 4, 4, seed=1))
    assert [(b.skip, b.join) for b in form.all_blocks] == [("identity", "sum")]


class WrittenAtAPlaceOfTheBatch(nn.Module):
    """Two rows of a table are written; where the second lies depends on the batch."""

    def __init__(self):
        super().__init__()
        self.f = mlp(WIDTH)

    def forward(self, x):
        f = self.f(x)
        table = torch.zeros(8, WIDTH, dtype=x.dtype)
        table[0] = x[0]
        table[x.shape[0] - 1] = f[0]
        return x + f, table


def test_a_place_that_depends_on_the_batch_leaves_the_writes_as_they_are():
    model = lively(WrittenAtAPlaceOfTheBatch())
    form = trace(model, ROWS)
    assert [(b.skip, b.join) for b in form.all_blocks] == [("identity", "sum")]
    more = normal(5, WIDTH, seed=2)
    for here, there in zip(form(more), model(more), strict=True):
        assert torch.equal(here, there)

"""Examples that influence one another: wherever in the model they do, lesions must not run as one batch."""

import pytest
import torch
from torch import nn

from marks import quick
from unbraid import lesion, reorderings, subsets, trace
from unbraid.sweep import lesioned, sweep

DEPTH = 5


class Mixing(nn.Module):
    """One branch sees the whole batch: its mean, or, one example after the other, those before or after."""

    def __init__(self, where, how):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(DEPTH))
        self.where, self.how = where, how

    def forward(self, x):
        for number, layer in enumerate(self.layers):
            h = torch.tanh(layer(x))
            if number == self.where:
                h = h - {"mean": self.mean, "before": self.before, "after": self.after}[self.how](h)
            x = x + h
        return x

    def mean(self, h):
        return h.mean(0, keepdim=True)

    def before(self, h):
        return h.cumsum(0)

    def after(self, h):
        return h.flip(0).cumsum(0).flip(0)


def size(output, labels):
    return output.square().mean()


def alone(form, x):
    with torch.no_grad():
        return [float(size(form.without(k)(x), None)) for k in range(DEPTH)]


def mixing(where, how):
    torch.manual_seed(where or 0)
    return trace(Mixing(where, how).double().eval(), torch.randn(4, 6, dtype=torch.float64))


@pytest.mark.parametrize("examples", [1, 2, 4])
@pytest.mark.parametrize("how", ["mean", "before", "after"])
@pytest.mark.parametrize("where", quick(range(DEPTH), 0, DEPTH - 1))
def test_a_branch_that_mixes_examples_is_seen_in_any_block(where, how, examples):
    form = mixing(where, how)
    x = torch.randn(examples, 6, dtype=torch.float64)
    for room in (None, 2 * examples, 3 * examples, 5 * examples):
        study = lesion(form, [(x, None)], size, max_batch=room)
        assert where == 0 or not study.stacked  # the first block runs once for all lesions, with no other
        assert study.metrics == pytest.approx(alone(form, x), rel=1e-13)


@pytest.mark.parametrize("how", ["mean", "before", "after"])
@pytest.mark.parametrize("where", range(DEPTH))
def test_it_is_seen_in_a_smaller_batch_that_is_the_first_to_run_with_others(where, how):
    form = mixing(where, how)
    batches = [torch.randn(examples, 6, dtype=torch.float64) for examples in (8, 2)]
    study = lesion(form, [(x, None) for x in batches], size, max_batch=8)
    assert where == 0 or not study.stacked
    large, small = (alone(form, x) for x in batches)
    assert study.metrics == pytest.approx([(8 * a + 2 * b) / 10 for a, b in zip(large, small, strict=True)], rel=1e-13)


@pytest.mark.parametrize("where", range(DEPTH))
def test_it_is_seen_in_subsets_pairs_and_orders(where):
    form = mixing(where, "mean")
    batches = [(torch.randn(4, 6, dtype=torch.float64), None)]
    for room in (None, 8, 12):
        assert not subsets(form, batches, size, max_batch=room).stacked
        assert not lesion(form, batches, size, sets="pairs", max_batch=room).stacked
        assert not reorderings(form, batches, size, swaps=[1, 2], repeats=3, max_batch=room).stacked


@pytest.mark.parametrize("examples", [1, 2, 4])
def test_examples_that_do_not_mix_run_together(examples):
    form = mixing(None, None)
    x = torch.randn(examples, 6, dtype=torch.float64)
    for room in (None, 2 * examples, 5 * examples):
        study = lesion(form, [(x, None)], size, max_batch=room)
        assert study.stacked
        assert study.metrics == pytest.approx(alone(form, x), rel=1e-13)


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("where", range(DEPTH))
def test_it_is_seen_in_orders_whatever_their_place_in_a_stack(where, how):
    """Where the whole model ran first of all, sums over earlier examples would not change it."""
    form = mixing(where, how)
    x = torch.randn(2, 6, dtype=torch.float64)
    for room in (None, 4):
        study = reorderings(form, [(x, None)], size, swaps=[1], repeats=4, max_batch=room)
        with torch.no_grad():
            expected = [float(size(form.reorder(order)(x), None)) for order in study.orders]
        assert study.metrics == pytest.approx(expected, rel=1e-13)


class TwoSided(nn.Module):
    """One operator's two results are read by all blocks; one of two branches of a block mixes the batch."""

    def __init__(self):
        super().__init__()
        self.side, self.head = nn.Linear(8, 16), nn.Linear(8, 3)
        self.f = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in range(5))

    def forward(self, x, side):
        a, b = torch.tanh(self.side(side)).chunk(2, -1)
        x = x + self.f[0](x) * a
        x = x + self.f[1](x - x.mean(0, keepdim=True)) * b + self.f[4](x) * a
        x = x + self.f[2](x) * a + 0
        x = x + self.f[3](x) * b
        return self.head(x)


def test_a_step_that_no_compared_variant_depends_on_is_compared_by_one_more():
    """The whole model is not among them, and what mixes the batch is a branch that some variants only list."""
    torch.manual_seed(0)
    form = trace(TwoSided().double(), (torch.randn(6, 8).double(), torch.randn(6, 8).double()))
    inputs, labels = (torch.randn(6, 8).double(), torch.randn(6, 8).double()), torch.zeros(6)
    sets = [((1, 0),), (2,), (0,), (0, 2), (3,), (0, 3)]

    def metric(output, _):
        return output.square().mean()

    found = sweep(form, lesioned(form, sets), [(inputs, labels)], metric)
    for which, value in zip(sets, found.means, strict=True):
        assert value == pytest.approx(float(metric(form.without(*which)(*inputs), labels)), rel=1e-12)
    assert not found.stacked

"""`without` equals the model with that branch made zero by other means: a hook that multiplies it by zero."""

from contextlib import contextmanager
from math import comb

import pytest
from torch import nn

from networks import Chain, Does, Residual, error, lively, mlp, normal
from unbraid.form import trace

X = normal(3, 6)


class Side(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = mlp(6), mlp(6)

    def forward(self, x):
        return x + self.a(x) + self.b(x)


@pytest.fixture(scope="module")
def model():
    inner = nn.Sequential(nn.Linear(6, 6), Residual(mlp(6)), nn.Linear(6, 6))
    projected = Does(lambda net, x: net.p(x) + net.f(x), p=nn.Linear(6, 4), f=mlp(6, 6, 4))
    return lively(Chain(Residual(mlp(6)), Side(), Residual(inner), projected, nn.LayerNorm(4)))


@pytest.fixture(scope="module")
def form(model):
    return trace(model, X)


@contextmanager
def silenced(*modules):
    handles = [m.register_forward_hook(lambda module, inputs, output: output * 0) for m in modules]
    yield
    for handle in handles:
        handle.remove()


# What is deleted, and the modules that the oracle silences.
CASES = {
    (0,): ["0.branch"],
    (1,): ["1.a", "1.b"],
    ((1, 0),): ["1.a"],
    ((1, 1),): ["1.b"],
    ((1, 1), (1, 0)): ["1.a", "1.b"],
    (2,): ["2.branch"],
    (3,): ["3.f"],
    (4,): ["2.branch.1.branch"],
    (0, 2): ["0.branch", "2.branch"],
    (0, 1, 2, 3): ["0.branch", "1.a", "1.b", "2.branch", "3.f"],
}


@pytest.mark.parametrize("which", CASES, ids=str)
def test_without_is_the_model_with_a_silent_branch(model, form, which):
    x = normal(2, 6, seed=1)
    with silenced(*(model.blocks.get_submodule(name) for name in CASES[which])):
        expected = model(x)
    assert error(form.without(*which)(x), expected) < 1e-12
    assert error(form(x), model(x)) < 1e-12


def test_deleting_nothing_changes_nothing(form):
    assert form.without()(X).equal(form(X))
    assert form.without().path_counts() == form.path_counts()


def test_deletions_commute(form):
    one, other, both = form.without(0).without(2), form.without(2).without(0), form.without(2, 0)
    assert one(X).equal(other(X))
    assert one(X).equal(both(X))
    assert form.without(0).without(0)(X).equal(form.without(0)(X))


def test_names_and_indices_keep_their_meaning(form):
    assert form.without(0).blocks == form.blocks
    assert form.without(0).without(3)(X).equal(form.without(0, 3)(X))


def test_a_deleted_block_has_one_path():
    form = trace(lively(Chain(*(Residual(mlp(6)) for _ in range(4)))), X)
    assert form.path_counts() == [comb(4, m) for m in range(5)]
    assert form.without(1).path_counts() == [comb(3, m) for m in range(4)]
    assert form.without(0, 1, 2, 3).path_counts() == [1]


def test_what_only_the_branch_needed_is_gone(form):
    fewer = form.without(2)
    kept = {name for segment in fewer.segments for name in segment.params}
    gone = {name for segment in form.segments for name in segment.params} - kept
    assert gone
    assert all(name.startswith("blocks.2.") for name in gone)


def test_unknown_blocks_and_branches(form):
    with pytest.raises(IndexError, match=r"without: there is no block 9; blocks are numbered 0 to 4\."):
        form.without(9)
    with pytest.raises(IndexError, match=r"without: block 1 has no branch 2; branches are numbered 0 to 1\."):
        form.without((1, 2))
    with pytest.raises(IndexError, match=r"without: block 1 has no branch -2"):
        form.without((1, -2))


def test_what_is_gone_already_can_be_deleted_again():
    """The second trunk reads the first in one branch; without that branch the first trunk is dead code."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.g = mlp(6), mlp(6)

        def forward(self, a, b):
            a = a + self.f(a)
            return b + self.g(a * b)

    model = lively(Two())
    a, b = X, normal(3, 6, seed=1)
    form = trace(model, (a, b))
    assert form.without(1)(a, b).equal(b)
    assert form.without(1).without(0)(a, b).equal(form.without(0).without(1)(a, b))

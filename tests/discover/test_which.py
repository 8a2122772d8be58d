"""Wherever a block is asked for, its index, its place from the end, its name and the block itself mean the same."""

import numpy as np
import pytest
import torch
from torch import nn

from networks import Chain, Does, Residual, lively, mlp, normal
from unbraid import gradient_parts, gradient_spectrum, lesion, mean_spectrum, prune, rank, trace, unravel
from unbraid.form import ResidualForm
from unbraid.paths import chosen_paths

X = normal(3, 6)
DATA = [(X, X)]


def square(output, labels):
    return (output - labels).square().mean()


@pytest.fixture(scope="module")
def model():
    """Two plain blocks, one of two branches, and one with a block inside."""
    sides = Does(lambda net, x: x + net.a(x) + net.b(x), a=mlp(6), b=mlp(6))
    holding = Residual(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), Residual(mlp(6)), nn.Linear(6, 6)))
    return lively(Chain(Residual(mlp(6)), Residual(mlp(6)), sides, holding)).double()


@pytest.fixture(scope="module")
def form(model):
    return trace(model, X)


def meanings(form: ResidualForm, index: int):
    """All that means one block."""
    return [index, index - len(form.blocks), np.int64(index), form.blocks[index].name, form.blocks[index]]


@pytest.mark.parametrize("index", [0, 2, 3])
def test_every_call_knows_every_meaning(form, index):
    """Against the index alone, whose meaning other tests fix."""
    without = form.without(index)(X)
    rest = [k for k in range(4) if k != index]
    moved, loss = form.reorder([index, *rest])(X), lesion(form, DATA, square, sets=[index]).metrics
    spectrum, parts = (call(form, X, target=1, at=index).norms for call in (gradient_spectrum, gradient_parts))
    worth, term = rank(form, DATA, groups=[[index]]).scores, unravel(form, X)
    mask = torch.full((1, 4), -1)
    mask[0, index] = 0
    path = chosen_paths(form, X, masks=mask, target=1)
    for which in meanings(form, index):
        assert form.without(which)(X).equal(without)
        assert form.reorder([which, *rest])(X).equal(moved)
        assert lesion(form, DATA, square, sets=[which]).metrics == loss
        assert lesion(form, DATA, square, sets=[[which]]).sets == ((index,),)
        assert gradient_spectrum(form, X, target=1, at=which).norms.equal(spectrum)
        assert gradient_parts(form, X, target=1, at=which).norms.equal(parts)
        assert rank(form, DATA, groups=[[which]]).scores.equal(worth)
        assert chosen_paths(form, X, masks=[{which: 0}], target=1).values.equal(path.values)
        if not isinstance(which, int | np.int64):
            assert term[which].value.equal(term[index + 1].value)
    assert term["input"].value.equal(term[0].value)
    assert term[-1].block == 3


def test_a_branch_has_numbers_and_a_name(form):
    without = form.without((2, 1))(X)
    pairs = [(-2, 1), ("blocks.2", 1), (form.blocks[2], 1), (2, "blocks.2.b"), ("blocks.2", "blocks.2.b")]
    for which in [*pairs, "blocks.2.b"]:
        assert form.without(which)(X).equal(without)
        assert lesion(form, DATA, square, sets=[[which]]).sets == (((2, 1),),)
    assert lesion(form, DATA, square, sets=["blocks.2.b"]).names == ("blocks.2.b",)
    chosen = [chosen_paths(form, X, masks=[{"blocks.2": b, -1: "skip"}], target=1) for b in (1, "blocks.2.b")]
    assert chosen[0].masks.tolist() == chosen[1].masks.tolist() == [[-1, -1, 1, -1]]


def test_a_nested_block_has_a_name(form):
    (nested,) = form.blocks[3].nested
    assert form.without(nested.name)(X).equal(form.without(4)(X))
    assert form.without(nested)(X).equal(form.without(4)(X))


def test_pruning_and_averages_take_names(model, form):
    smaller = prune(model, form, ["blocks.1", -4])
    assert (smaller(X) - form.without(0, 1)(X)).abs().max() < 1e-12
    found = [mean_spectrum(form, [(X, torch.arange(3))], at=at).norms for at in (1, "blocks.1", -3, form.blocks[1])]
    assert all(norms.equal(found[0]) for norms in found)


def test_names_and_indices_keep_their_meaning_in_derived_forms(form):
    moved = form.reorder([1, 0, 2, 3])
    assert moved.without("blocks.0")(X).equal(moved.without(0)(X))
    assert moved.reorder(["blocks.0", "blocks.1", "blocks.2", "blocks.3"])(X).equal(form(X))
    assert moved.reorder(form.blocks)(X).equal(form(X))
    gone = form.without("blocks.0")
    assert gone.without("blocks.2")(X).equal(form.without(0, 2)(X))
    assert gone.deletions == (0,)
    assert unravel(moved, X)["blocks.3"].block == 3


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("block.1", r"^without: there is no block 'block\.1'\. Did you mean 'blocks\.1'.*\?$"),
        ("b", r"^without: there is no block 'b'\. Did you mean 'blocks\.2\.b'\?$"),
        ("xyz", r"^without: there is no block 'xyz'; there are 'blocks\.0', .* and 1 more\.$"),
        (7, r"^without: there is no block 7; blocks are numbered 0 to 4\.$"),
        (-5, r"^without: there is no block -5; blocks are numbered 0 to 4, and −1 to −4 from the end\.$"),
        ((2, 2), r"^without: block 2 has no branch 2; branches are numbered 0 to 1\.$"),
        ((2, -2), r"^without: block 2 has no branch -2; branches are numbered 0 to 1\.$"),
        ((2, "c"), r"^without: block 2 has no branch 'c'; its branches are 'blocks\.2\.a', 'blocks\.2\.b'\.$"),
        (True, r"^without: a block is its index, its name, or a Block, .*; got True\.$"),
    ],
)
def test_what_is_not_there_is_told(form, which, said):
    with pytest.raises(IndexError, match=said):
        form.without(which)


def test_each_call_says_who_asks(form):
    calls = {
        "lesion": lambda: lesion(form, DATA, square, sets=["blocks.9"]),
        "rank": lambda: rank(form, DATA, groups=[["blocks.9"]]),
        "prune": lambda: prune(form.origin.model, form, ["blocks.9"]),
        "reorder": lambda: form.reorder(["blocks.9", 1, 2, 3]),
        "chosen_paths": lambda: chosen_paths(form, X, masks=[{"blocks.9": 0}], target=1),
        "terms": lambda: unravel(form, X)["blocks.9"],
    }
    for call, ask in calls.items():
        with pytest.raises(IndexError, match=rf"^{call}: there is no block 'blocks\.9'\. Did you mean 'blocks\.\d'"):
            ask()
    with pytest.raises(ValueError, match=r"'blocks\.9' came, which is no block's name either\. Did you mean 'blocks"):
        gradient_spectrum(form, X, target=1, at="blocks.9")


def test_a_block_of_another_form_is_refused(form):
    other = trace(lively(Does(lambda net, x: x + net.f(x), f=mlp(6))).double(), X)
    with pytest.raises(IndexError, match=r"block 0 \('f'\) is of another form; here block 0 is 'blocks\.0'\.$"):
        form.without(other.blocks[0])


def test_a_name_that_two_branches_have_needs_its_block():
    twice = Does(lambda net, x: net.r(net.r(x)), r=Does(lambda net, x: x + net.a(x) + net.b(x), a=mlp(6), b=mlp(6)))
    form = trace(lively(twice).double(), X)
    with pytest.raises(IndexError, match=r"2 branches have the name 'r\.a'; give one as .*: \[\(0, 0\), \(1, 0\)\]\.$"):
        form.without("r.a")
    assert form.without(("r@2", "r.a"))(X).equal(form.without((1, 0))(X))

"""Branches count from 0 wherever a number stands, and the skip is −1: each number means the same to every call."""

import pytest
import torch
from torch import nn

from networks import Chain, Does, error, lively, mlp, normal
from unbraid import all_paths, lesion, trace
from unbraid.paths import chosen_paths

X = normal(3, 6)


@pytest.fixture(scope="module")
def sides():
    """Two blocks of two branches; the second branch of the first holds a block."""

    def inner(net, x):
        return x + net.g(x)

    holding = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), Does(inner, g=mlp(6)), nn.Linear(6, 6))
    first = Does(lambda net, x: x + net.a(x) + net.b(x), a=mlp(6), b=holding)
    second = Does(lambda net, x: x + net.a(x) + net.b(x), a=mlp(6), b=mlp(6))
    model = lively(Chain(first, second)).double()
    return model, trace(model, X)


def by_hand(model, x, gone):
    """The model without some (block, branch), from its own modules."""
    for number, block in enumerate(model.blocks):
        x = x + sum(f(x) for j, f in enumerate((block.a, block.b)) if (number, j) not in gone)
    return x


def test_a_parent_is_what_without_takes(sides):
    model, form = sides
    (nested,) = form.blocks[0].nested
    assert nested.parent == (0, 1)
    smaller = form.without(nested.parent)
    assert error(smaller(X), by_hand(model, X, {(0, 1)})) < 1e-12
    assert nested.index not in {add.block for add in smaller.adds}
    assert nested.index in {add.block for add in form.without((0, 0)).adds}


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("branch", [0, 1])
def test_one_number_means_one_branch(sides, block, branch):
    """In `without`, in a lesion, and in the segments, told by the parameters that they read."""
    model, form = sides
    wanted = by_hand(model, X, {(block, branch)})
    assert error(form.without((block, branch))(X), wanted) < 1e-12
    study = lesion(form, [(X, X)], lambda y, _: y.square().mean(), sets=[[(block, branch)]])
    assert float(study.metrics[0]) == pytest.approx(wanted.square().mean().item(), rel=1e-12)
    own = f"blocks.{block}.{'ab'[branch]}."
    params = {name for s in form.segments if (s.block, s.branch) == (block, branch) for name in s.params}
    assert params
    assert all(name.startswith(own) for name in params)


def test_masks_say_which_branch(sides):
    """The values of all paths that choose a branch of the first block: its own tangent, pushed through the second."""
    model, form = sides
    every = all_paths(form, X, target=1, linearize="jacobian")
    assert set(every.masks.unique().tolist()) == {-1, 0, 1}
    first, second = model.blocks
    for choice, along in ((-1, nn.Identity()), (0, first.a), (1, first.b)):
        _, tangent = torch.func.jvp(along, (X,), (X,))
        _, tangent = torch.func.jvp(second, (first(X),), (tangent,))
        assert error(every.values[every.masks[:, 0] == choice].sum(0), tangent[:, 1].detach()) < 1e-10


def test_a_mask_of_all_paths_is_a_mask_of_chosen_paths(sides):
    _, form = sides
    every = all_paths(form, X, target=1)
    assert error(chosen_paths(form, X, masks=every.masks, target=1).values, every.values) < 1e-12


def test_the_tree_and_the_equation_count_from_0(sides):
    _, form = sides
    assert form.equation().text == "h1 = x + f1,0[x] + f1,1[x]\ny = h1 + f2,0[h1] + f2,1[h1]"
    branches = [str(node.label) for node in form.tree().children[1].children]
    assert [label.partition(":")[0] for label in branches] == ["f0", "f1"]
    assert "h <- h + f0(h) + f1(h)" in str(form.tree().children[1].label)
